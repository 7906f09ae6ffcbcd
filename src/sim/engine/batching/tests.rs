use proptest::prelude::*;

use super::super::{Finish, block_hashes};
use super::*;
use crate::sim::flavor::Flavor;
use crate::sim::options::SimOptions;

const MS: Nanos = 1_000_000;

fn config(max_num_seqs: usize, kv_tokens: u64) -> BatchingConfig {
    let costs = Costs { base: 5e-3, per_seq: 50e-6, per_kv: 50e-9, prefill_rate: 20_000.0, kv_tokens };
    BatchingConfig {
        costs,
        policy: Policy::Continuous,
        max_num_seqs,
        max_num_batched_tokens: 8192,
        tokens_per_step: 1,
        noise: 0.0,
        seed: 0,
    }
}

fn job(id: u64, prompt_tokens: u32, output_tokens: u32) -> Job {
    let own = id as u32 * 1_000_000;
    Job { id, prompt_tokens, blocks: block_hashes(own..own + prompt_tokens), output_tokens, finish: Finish::Length }
}

/// Runs until idle.
fn drain(e: &mut Batching) -> Vec<Emission> {
    let mut out = vec![];
    while let Some(at) = e.deadline() {
        e.advance(at, usize::MAX, &mut out);
    }
    out
}

fn first(out: &[Emission], id: u64) -> Nanos {
    out.iter().find(|o| o.id == id).unwrap().at
}

fn tokens(out: &[Emission], id: u64) -> u32 {
    out.iter().filter(|o| o.id == id).map(|o| o.tokens).sum()
}

/// Output tokens per second of a closed loop, and its mean TTFT in seconds.
fn closed_loop(config: BatchingConfig, streams: u64, prompt: u32, output: u32) -> (f64, f64) {
    let mut e = Batching::new(config, PrefixCache::default());
    let mut next = streams;
    for id in 0..streams {
        e.submit(job(id, prompt, output), 0);
    }
    let (mut out, mut made, mut end) = (vec![], 0u64, 0);
    while let Some(at) = e.deadline() {
        e.advance(at, usize::MAX, &mut out);
        for o in out.drain(..) {
            made += u64::from(o.tokens);
            end = o.at;
            if o.finished && next < streams * 8 {
                e.submit(job(next, prompt, output), o.at);
                next += 1;
            }
        }
    }
    (made as f64 / (end as f64 / 1e9), e.ledger.ttft.sum / e.ledger.ttft.count() as f64)
}

#[test]
fn one_request_takes_its_prefill_and_one_step_per_token() {
    let mut e = Batching::new(config(8, 100_000), PrefixCache::default());
    e.submit(job(1, 2000, 3), 7 * MS);
    let out = drain(&mut e);
    // 5 ms + 2000 / 20000 s, then 5 ms + 50 µs + 50 ns per token of context.
    let t0 = 7 * MS + 105 * MS;
    assert_eq!(out[0].at, t0);
    assert_eq!(out[1].at, t0 + 5_050_000 + 50 * 2001);
    assert_eq!(out[2].at, out[1].at + 5_050_000 + 50 * 2002);
    assert!(out[2].finished && !out[1].finished);
    assert_eq!(e.ledger().finished_length, 1);
    assert_eq!(e.kv_used, 0);
}

#[test]
fn throughput_rises_with_the_batch_and_saturates() {
    let at = |streams| closed_loop(config(256, 10_000_000), streams, 100, 100);
    let (one, four, many, more) = (at(1).0, at(4).0, at(128).0, at(256).0);
    assert!(four > 3.0 * one, "{one} {four}");
    assert!(many > 15.0 * one && many < 128.0 * one * 0.6, "{one} {many}");
    assert!(more < many * 1.5, "doubling the load gives less and less: {many} {more}");
    let capped = closed_loop(config(16, 10_000_000), 256, 100, 100).0;
    let sixteen = at(16).0;
    assert!((capped - sixteen).abs() < 0.1 * sixteen, "max_num_seqs is the batch: {capped} {sixteen}");
}

#[test]
fn ttft_grows_with_queueing() {
    let at = |streams| closed_loop(config(16, 10_000_000), streams, 100, 100).1;
    assert!(at(64) > 10.0 * at(16), "{} {}", at(64), at(16));
}

#[test]
fn long_prompts_are_prefilled_in_chunks_beside_running_answers() {
    let mut c = config(8, 1_000_000);
    c.max_num_batched_tokens = 1000;
    let mut e = Batching::new(c, PrefixCache::default());
    e.submit(job(1, 10, 50), 0);
    let mut out = vec![];
    e.advance(20 * MS, usize::MAX, &mut out);
    e.submit(job(2, 5000, 2), 20 * MS);
    let rest = drain(&mut e);
    let before = rest.iter().filter(|o| o.id == 1 && o.at < first(&rest, 2)).count();
    assert!((5..=7).contains(&before), "answer 1 goes on during five chunks of prompt 2: {before}");
    assert_eq!(tokens(&out, 1) + tokens(&rest, 1), 50);
}

#[test]
fn a_full_kv_cache_queues_and_preempts_but_loses_nothing() {
    // Room for two and a half of these requests.
    let mut e = Batching::new(config(8, 1000), PrefixCache::default());
    for id in 1..=4 {
        e.submit(job(id, 200, 200), 0);
    }
    let out = drain(&mut e);
    for id in 1..=4 {
        assert_eq!(tokens(&out, id), 200);
    }
    let ledger = e.ledger();
    assert!(ledger.preemptions > 0);
    assert_eq!((ledger.finished(), ledger.kv_used, ledger.running, ledger.waiting), (4, 0, 0, 0));
    let end_of_1 = out.iter().rfind(|o| o.id == 1).unwrap().at;
    assert!(out.iter().rfind(|o| o.id == 4).unwrap().at > end_of_1);
}

#[test]
fn a_known_prefix_is_not_prefilled_again() {
    let ttft = |cache: PrefixCache| {
        let mut e = Batching::new(config(8, 100_000), cache);
        let mut second = job(2, 4000, 1);
        second.blocks = job(1, 4000, 1).blocks;
        e.submit(job(1, 4000, 1), 0);
        let cold = drain(&mut e)[0].at;
        e.submit(second, 10_000 * MS);
        let out = drain(&mut e);
        (cold, out[0].at - 10_000 * MS, out[0].cached)
    };
    let (cold, warm, cached) = ttft(PrefixCache::new(100_000));
    assert_eq!((cold, warm, cached), (205 * MS, 5 * MS + 800_000, 3984));
    let (cold, again, cached) = ttft(PrefixCache::default());
    assert_eq!((cold, again, cached), (205 * MS, 205 * MS, 0));
}

#[test]
fn a_cancelled_request_frees_its_place_at_once() {
    let mut e = Batching::new(config(1, 100_000), PrefixCache::default());
    e.submit(job(1, 100, 1000), 0);
    e.submit(job(2, 100, 2), 0);
    let mut out = vec![];
    e.advance(50 * MS, usize::MAX, &mut out);
    assert!(out.iter().all(|o| o.id == 1));
    e.cancel(1);
    e.cancel(99);
    let out = drain(&mut e);
    assert!(out.iter().all(|o| o.id == 2) && tokens(&out, 2) == 2);
    assert_eq!((e.ledger().aborted, e.kv_used), (1, 0));
}

#[test]
fn a_late_driver_does_not_move_steps_that_were_due() {
    let run = |stops: &[Nanos]| {
        let mut e = Batching::new(config(8, 100_000), PrefixCache::default());
        e.submit(job(1, 100, 10), 0);
        let mut out = vec![];
        for now in stops {
            e.advance(*now, usize::MAX, &mut out);
        }
        out
    };
    let punctual: Vec<Nanos> = (0..1000).map(|i| i * MS / 4).collect();
    assert_eq!(run(&punctual), run(&[250 * MS]));
    // A job that arrives while the driver is late is not served before it arrived.
    let mut e = Batching::new(config(8, 100_000), PrefixCache::default());
    e.submit(job(1, 100, 2), 0);
    e.submit(job(2, 100, 1), 500 * MS);
    let out = drain(&mut e);
    assert_eq!(first(&out, 2), 510 * MS);
}

#[test]
fn a_static_batch_holds_the_engine_until_its_longest_answer_ends() {
    let mut c = config(2, 1_000_000);
    c.policy = Policy::Static { fill: 2 * MS };
    let mut e = Batching::new(c, PrefixCache::default());
    e.submit(job(1, 100, 5), 0);
    assert_eq!(e.deadline(), Some(2 * MS), "it waits for the batch to fill");
    e.submit(job(2, 300, 50), MS);
    e.submit(job(3, 100, 1), MS);
    let out = drain(&mut e);
    // Two rows padded to 300: 600 tokens.
    assert_eq!((first(&out, 1), first(&out, 2)), (36 * MS, 36 * MS));
    let ends = |id| out.iter().rfind(|o| o.id == id).unwrap().at;
    assert!(ends(1) < ends(2));
    assert!(first(&out, 3) > ends(2));
    assert_eq!(tokens(&out, 2), 50);
}

#[test]
fn noise_is_seeded_and_keeps_the_mean() {
    let run = |noise, seed| {
        let mut c = config(1, 100_000);
        (c.noise, c.seed) = (noise, seed);
        let mut e = Batching::new(c, PrefixCache::default());
        e.submit(job(1, 100, 2000), 0);
        drain(&mut e).last().unwrap().at
    };
    assert_eq!(run(0.1, 7), run(0.1, 7));
    assert_ne!(run(0.1, 7), run(0.1, 8));
    let (exact, noisy) = (run(0.0, 7) as f64, run(0.1, 7) as f64);
    assert!((noisy / exact - 1.0).abs() < 0.01);
}

#[test]
fn presets_give_plausible_single_stream_speeds() {
    let costs = Costs::of(&SimOptions::new(Flavor::HfVllm, "m-8B"));
    let (rate, _) = closed_loop(BatchingConfig { costs, ..config(256, 0) }, 1, 1024, 128);
    assert!((90.0..180.0).contains(&rate), "an 8B model decodes about 130 tokens/s: {rate}");
}

proptest! {
    #[test]
    fn every_token_comes_exactly_once_and_in_order(
        jobs in prop::collection::vec((1u32..400, 1u32..60, 0u64..200), 1..30),
        seqs in 1usize..8, kv in 500u64..3000, budget in 16u32..600, per_step in 1u32..4, fixed_batch: bool,
    ) {
        let mut c = config(seqs, kv);
        c.max_num_batched_tokens = budget;
        if fixed_batch {
            c.policy = Policy::Static { fill: 2 * MS };
        } else {
            c.tokens_per_step = per_step;
        }
        let mut e = Batching::new(c, PrefixCache::new(kv));
        let mut arrivals: Vec<_> = jobs.iter().enumerate().map(|(i, j)| (j.2 * MS, i as u64, j.0, j.1)).collect();
        arrivals.sort();
        let mut out = vec![];
        for (at, id, prompt, output) in arrivals {
            e.advance(at, usize::MAX, &mut out);
            e.submit(job(id, prompt, output), at);
            prop_assert!(e.running.len() <= seqs);
        }
        let mut steps = 0;
        while let Some(at) = e.deadline() {
            e.advance(at, usize::MAX, &mut out);
            prop_assert!(e.kv_used <= e.capacity);
            steps += 1;
            prop_assert!(steps < 1_000_000, "it ends");
        }
        prop_assert!(out.windows(2).all(|w| w[0].at <= w[1].at));
        for (id, j) in jobs.iter().enumerate() {
            prop_assert_eq!(tokens(&out, id as u64), j.1);
            prop_assert!(first(&out, id as u64) > j.2 * MS);
            prop_assert_eq!(out.iter().filter(|o| o.id == id as u64 && o.finished).count(), 1);
        }
        prop_assert_eq!((e.kv_used, e.seqs.len()), (0, 0));
    }
}
