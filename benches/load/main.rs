//! The load generator against the physical limit: accuracy, CPU per token, throughput, memory, start. `cargo bench --bench
//! load` prints Markdown tables; words after `--` choose among them (`accuracy cpu throughput memory start`).
//!
//! Three processes: a null server whose timing is known, pinned to core 0; the client, pinned to core 1; this one. The
//! clients are `raw` (the limit: one epoll loop, one read a token, no features), `library` (`load::run_sample`) and
//! `binary` (`llmatrix measure`). Clients that are compared take turns, so that a noisy machine is noisy for both.

#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod clients;
#[cfg(target_os = "linux")]
mod raw;
#[cfg(target_os = "linux")]
mod tables;
#[cfg(target_os = "linux")]
mod truth;

#[cfg(target_os = "linux")]
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", ttft_us, itl_us, per_segment] => truth::serve(number(ttft_us), number(itl_us), number(per_segment)),
        ["raw", address, streams, requests, tokens] => {
            raw::run(address, number(streams), number(requests), number(tokens));
        }
        ["library", address, streams, requests, tokens] => {
            clients::library(address, number(streams), number(requests), number(tokens));
        }
        // `cargo bench` says so; a test run of all targets does not, and must not take minutes.
        _ if words.contains(&"--bench") => {
            let chosen: Vec<&str> = words.into_iter().filter(|w| !w.starts_with("--")).collect();
            tables::print(&chosen);
        }
        _ => {}
    }
}

#[cfg(target_os = "linux")]
fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is not a number"))
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this benchmark pins processes to cores, which it knows how to do on Linux only");
}
