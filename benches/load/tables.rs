//! The tables.

use std::time::Duration;

use super::clients::Client;
use super::truth::Null;

/// Turns that clients take where their costs are compared.
const TURNS: usize = 5;
const TOKENS: u32 = 200;

/// Prints the chosen tables, or all of them.
pub fn print(chosen: &[&str]) {
    let wants = |name: &str| chosen.is_empty() || chosen.contains(&name);
    if wants("accuracy") {
        accuracy();
    }
    if wants("cpu") {
        cpu();
    }
    if wants("throughput") {
        throughput();
    }
    if wants("memory") {
        memory();
    }
    if wants("start") {
        start();
    }
}

/// Turns for accuracy.
const ACCURACY_TURNS: usize = 3;

fn accuracy() {
    println!("\nAccuracy, said − true: TTFT 50 ms, all streams in step; medians of {ACCURACY_TURNS} turns.\n");
    println!(
        "| streams | ITL | client | TTFT mean | ITL mean | ITL p99 | ITL p99 − raw's |\n|---|---|---|---|---|---|---|"
    );
    for (streams, itl_ms, waves, tokens) in [(1, 10, 3, 100), (32, 10, 3, 100), (256, 10, 3, 100), (1024, 40, 2, 50)] {
        let server = Null::start(Duration::from_millis(50), Duration::from_millis(itl_ms), 1);
        let clients = [Client::Raw, Client::Library, Client::Binary];
        let turns: Vec<[[f64; 3]; 3]> = (0..ACCURACY_TURNS)
            .map(|_| clients.map(|client| off_by(client, &server, (streams, streams as u64 * waves, tokens))))
            .collect();
        let of = |value: &dyn Fn(&[[f64; 3]; 3]) -> f64| median(turns.iter().map(value).collect());
        for (i, client) in clients.iter().enumerate() {
            println!(
                "| {streams} | {itl_ms} ms | {} | {:+.3} ms | {:+.3} % | {:.3} ms | {:+.3} ms |",
                client.name(),
                of(&|t| t[i][0]),
                of(&|t| t[i][1]),
                of(&|t| t[i][2]),
                of(&|t| t[i][2] - t[0][2]),
            );
        }
    }
}

/// TTFT off by (ms), mean ITL off by (%), ITL p99 as said (ms).
fn off_by(client: Client, server: &Null, (streams, requests, tokens): (u32, u64, u32)) -> [f64; 3] {
    server.truth();
    let (_, said) = client.run(server, streams, requests, tokens);
    let truth = server.truth();
    let (ttft, itl) = (truth.ttft_ms(tokens.into()), truth.itl_ms(tokens.into()));
    [said.ttft_ms - ttft, 100.0 * (said.itl_ms / itl - 1.0), said.p99_itl_ms]
}

fn cpu() {
    println!("\nCPU seconds of the whole client process per 1M tokens, 256 streams; medians of {TURNS} turns.\n");
    println!(
        "| server | events per segment | raw | library | binary | library ÷ raw | binary ÷ raw |\n|---|---|---|---|---|---|---|"
    );
    let paced = Duration::from_millis(10);
    for (name, itl, per_segment, requests) in [
        ("zero latency", Duration::ZERO, 1, 5120),
        ("zero latency", Duration::ZERO, 16, 5120),
        ("10 ms ITL", paced, 1, 512),
    ] {
        let server = Null::start(itl, itl, per_segment);
        let clients = [Client::Raw, Client::Library, Client::Binary];
        let turns: Vec<[f64; 3]> = (0..TURNS)
            .map(|_| {
                clients.map(|client| {
                    let (done, _) = client.run(&server, 256, requests, TOKENS);
                    done.cpu_s / (requests * u64::from(TOKENS)) as f64 * 1e6
                })
            })
            .collect();
        let of = |value: &dyn Fn(&[f64; 3]) -> f64| median(turns.iter().map(value).collect());
        println!(
            "| {name} | {per_segment} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            of(&|t| t[0]),
            of(&|t| t[1]),
            of(&|t| t[2]),
            of(&|t| t[1] / t[0]),
            of(&|t| t[2] / t[0]),
        );
    }
}

fn throughput() {
    println!("\nTokens per second on one core, 16 events per segment; medians of {TURNS} turns.\n");
    println!("| streams | raw | library | library ÷ raw |\n|---|---|---|---|");
    for streams in [32, 256, 1024] {
        let server = Null::start(Duration::ZERO, Duration::ZERO, 16);
        let turns: Vec<[f64; 2]> = (0..TURNS)
            .map(|_| {
                [Client::Raw, Client::Library].map(|client| {
                    server.truth();
                    client.run(&server, streams, 10_240, TOKENS);
                    server.truth().tokens_per_s(TOKENS.into())
                })
            })
            .collect();
        let of = |value: &dyn Fn(&[f64; 2]) -> f64| median(turns.iter().map(value).collect());
        println!(
            "| {streams} | {:.2}M | {:.2}M | {:.2} |",
            of(&|t| t[0]) / 1e6,
            of(&|t| t[1]) / 1e6,
            of(&|t| t[1] / t[0])
        );
    }
}

fn memory() {
    println!("\nPeak memory at 256 streams, answers of 64 tokens.\n");
    println!("| client | 2,560 requests | 102,400 requests | bytes per further request |\n|---|---|---|---|");
    let server = Null::start(Duration::ZERO, Duration::ZERO, 16);
    for client in [Client::Library, Client::Binary] {
        let [few, many] = [2_560, 102_400].map(|n| client.run(&server, 256, n, 64).0.peak_mib);
        let each = (many - few) * 1048576.0 / (102_400.0 - 2_560.0);
        println!("| {} | {few:.1} MiB | {many:.1} MiB | {each:.0} |", client.name());
    }
}

fn start() {
    println!("\nFrom the start of the process to its first request, medians of {TURNS} turns.\n");
    println!("| client | ms |\n|---|---|");
    let server = Null::start(Duration::ZERO, Duration::ZERO, 1);
    for client in [Client::Raw, Client::Library, Client::Binary] {
        let times = (0..TURNS).map(|_| {
            server.truth();
            let (done, _) = client.run(&server, 1, 1, 8);
            server.truth().first_request_ns.saturating_sub(done.spawned_ns) as f64 / 1e6
        });
        println!("| {} | {:.1} |", client.name(), median(times.collect()));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
