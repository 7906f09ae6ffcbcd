//! `kill -9` at random instants, again and again, over sweeps that are resumed after each.

use std::time::{Duration, Instant};

use crate::tree::{Bench, Samples, assert_kept};
use crate::{Dice, scale, tell};

/// Sixteen units that take about two seconds.
fn sweep() -> Bench {
    Bench::new(8, 1, 20_000, "attempts = 5")
}

/// When the next kill comes: half of them early, where a start recovers what the last one left, the others anywhere.
fn instant(dice: &mut Dice) -> Duration {
    let within = if dice.below(2) == 0 { 400 } else { 2500 };
    Duration::from_micros(dice.below(within * 1000))
}

#[test]
fn chained_kills_lose_nothing() {
    let kills = scale("KILLS", 50);
    let mut dice = Dice::new(0);
    let (mut done, mut sweeps, mut committed) = (0, 0, 0);
    while done < kills {
        let bench = sweep();
        let mut before = Samples::new();
        while done < kills && !bench.is_complete() {
            let mut run = bench.start();
            let end = Instant::now() + instant(&mut dice);
            while Instant::now() < end && run.try_wait().expect("it can be asked").is_none() {
                std::thread::sleep(Duration::from_millis(1).min(end.saturating_duration_since(Instant::now())));
            }
            if run.try_wait().expect("it can be asked").is_none() {
                run.kill().expect("it is killed");
                done += 1;
            }
            run.wait().expect("it has ended");
            let now = bench.samples();
            assert_kept(&before, &now);
            before = now;
        }
        bench.complete();
        let now = bench.samples();
        assert_kept(&before, &now);
        bench.assert_whole();
        sweeps += 1;
        committed += now.len();
    }
    tell(&format!(
        "{done} kills over {sweeps} sweeps of 16 units: {committed} samples committed, 0 lost, 0 changed, 0 twice, 0 leftovers"
    ));
}
