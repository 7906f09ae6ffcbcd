//! What the gate and the step detector are worth, on nights whose truth is known: how often a regression is reported, how
//! often one is that is not there, how near a step is placed. `cargo bench --bench gate` prints the tables of
//! docs/statistics.md; `-- --nights 100` asks fewer nights, `-- gate` or `-- steps` one of the tables. Everything goes through the same functions as
//! `llmatrix compare`, from sides with samples to verdicts; only the numbers are drawn. Seeded.

mod nights;
mod steps;
mod world;

use nights::{Design, Nights};
use world::{Deviation, Noise, World};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|a| a == "--nights");
    let nights: usize = at.and_then(|i| arguments.get(i + 1)?.parse().ok()).unwrap_or(1000);
    let named = |part: &str| arguments.iter().any(|a| a == part);
    let all = !named("gate") && !named("steps");
    if all || named("gate") {
        gate(nights);
    }
    if all || named("steps") {
        step_detector(nights);
    }
}

fn gate(nights: usize) {
    println!("64 cells in 8 stacks, 3 repeats, noise 2 %, gate +5 %, false-discovery rate 1 %.");
    println!("Regression: +10 % in the 8 cells of one stack, {nights} nights; none: {} nights.\n", 2 * nights);
    println!("| noise | starts differ by | error from | 7 of 8 found | alarms without any (95 % bound) | undecided |");
    println!("|---|---|---|--:|--:|--:|");
    for noise in Noise::ALL {
        for deviation in Deviation::ALL {
            for design in Design::ALL {
                row(noise, deviation, design, nights);
            }
        }
    }
}

fn step_detector(nights: usize) {
    println!("\n60 nights, noise 3 %, one step of 5 %; {nights} series each.\n");
    println!("| noise | step at night | within ±2 nights | eight cells together: exact | flat series with a step |");
    println!("|---|---|--:|--:|--:|");
    for noise in [Noise::Normal, Noise::Gamma, Noise::Exponential] {
        let flat = share(steps::flat(noise, nights));
        for (range, name) in [(steps::INNER, "10 to 50"), (steps::ANY, "1 to 59")] {
            let alone = share(steps::alone(noise, &range, nights));
            let together = share(steps::together(noise, &range, nights));
            println!("| {} | {name} | {alone} | {together} | {flat} |", noise.name());
        }
    }
}

fn row(noise: Noise, deviation: Deviation, design: Design, nights: usize) {
    let world = World { noise, deviation };
    let with = Nights::new(world, design, 0.10).tally(nights);
    let without = Nights::new(world, design, 0.0).tally(2 * nights);
    println!(
        "| {} | {} | {} | {} | {} ({:.1} %) | {:.0} % |",
        noise.name(),
        deviation.name(),
        design.name(),
        share((with.found, nights)),
        share((without.alarms, 2 * nights)),
        100.0 * upper(without.alarms, 2 * nights),
        100.0 * without.undecided as f64 / (64 * 2 * nights) as f64,
    );
}

fn share((of, all): (usize, usize)) -> String {
    format!("{:.1} %", 100.0 * of as f64 / all as f64)
}

/// The one-sided 95 % upper bound of a share (Clopper and Pearson), by bisection of the binomial's lower tail.
fn upper(of: usize, all: usize) -> f64 {
    let below = |p: f64| -> f64 {
        let (p, q) = (p.ln(), (-p).ln_1p());
        let mut choose = 0.0;
        (0..=of)
            .map(|k| {
                if k > 0 {
                    choose += ((all - k + 1) as f64).ln() - (k as f64).ln();
                }
                (choose + k as f64 * p + (all - k) as f64 * q).exp()
            })
            .sum()
    };
    let (mut low, mut high) = (of as f64 / all as f64, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if below(middle.clamp(1e-12, 1.0 - 1e-12)) > 0.05 { low = middle } else { high = middle }
    }
    high
}
