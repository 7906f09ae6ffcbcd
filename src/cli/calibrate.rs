//! `calibrate`: what this host can measure without being the bottleneck.

use std::path::Path;

use super::args::{CalibrateArgs, Global};
use super::failure::Failure;
use super::output::{self, Output};
use super::prepare;
use crate::host;
use crate::load::{self, Calibration, Capability};

pub fn command(args: &CalibrateArgs, global: &Global, output: &Output) -> Result<u8, Failure> {
    let layered = prepare::settings(Path::new("."), global)?;
    let workers = Some(layered.settings.load_threads).filter(|n| *n > 0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Environment(format!("cannot start the runtime: {e}")))?;
    host::raise_open_files();
    let failed = |e: load::LoadError| {
        let cause = std::error::Error::source(&e).map(|c| format!(": {c}")).unwrap_or_default();
        Failure::Environment(format!("this host cannot be calibrated: {e}{cause}"))
    };
    if let Some(streams) = args.streams {
        if streams == 0 {
            return Err(Failure::Usage("--streams 0: give at least one".into()));
        }
        let one = runtime.block_on(load::calibrate(streams, workers)).map_err(failed)?;
        match output.json {
            true => output.json(&one),
            false => output.text(&steps(&[one])),
        }
        return Ok(0);
    }
    let told = |c: &Calibration| output.note(&format!("{} streams, {:.0} tokens/s", c.streams, c.tokens_per_s));
    let capability = runtime.block_on(load::capability(workers, told)).map_err(failed)?;
    match output.json {
        true => output.json(&capability),
        false => output.text(&report(&capability)),
    }
    Ok(0)
}

/// The report for a person.
fn report(c: &Capability) -> String {
    let verdict = match c.streams {
        0 => "This host is too busy to measure to a millisecond, even one stream at a time.".to_string(),
        n => format!(
            "Within 1 ms of TTFT and 1 % of ITL: {n} streams, {:.0} tokens/s. A sample beyond that still says itself \
             whether the client was its bottleneck.",
            c.tokens_per_s
        ),
    };
    format!(
        "{}\n\nFaster tokens over {} streams\n{}\n\n{verdict}\n",
        steps(&c.by_streams),
        c.by_rate.first().map_or(0, |first| first.streams),
        steps(&c.by_rate)
    )
}

fn steps(all: &[Calibration]) -> String {
    let mut table = output::table(&[
        "streams",
        "ITL",
        "tokens/s",
        "TTFT off by",
        "p99",
        "gaps off by",
        "mean ITL",
        "receive lag p99",
        "client CPU",
    ]);
    let ms = |v: f64| format!("{v:.3} ms");
    for c in all {
        table.add_row([
            c.streams.to_string(),
            format!("{:.1} ms", c.itl_ms),
            format!("{:.0}", c.tokens_per_s),
            ms(c.error_ttft_ms),
            ms(c.p99_error_ttft_ms),
            ms(c.error_itl_ms),
            format!("{:+.3} %", 100.0 * c.itl_bias),
            c.recv_lag_p99_ms.map_or_else(|| "–".into(), ms),
            c.client_cpu_fraction.map_or_else(|| "–".into(), |share| format!("{:.0} %", 100.0 * share)),
        ]);
    }
    table.to_string()
}
