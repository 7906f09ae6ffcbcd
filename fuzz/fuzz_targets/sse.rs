//! Server-sent events: however a stream is cut into slices, its events are the same, and nothing panics. The first bytes
//! of the input say where it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llmatrix::wire::sse::SseParser;

fn events<'a>(slices: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut parser = SseParser::default();
    let mut out = Vec::new();
    for slice in slices {
        parser.feed(slice, |event| out.push(event.to_vec())).expect("no event is too large");
    }
    parser.finish(|event| out.push(event.to_vec()));
    out
}

fuzz_target!(|input: &[u8]| {
    let Some((cuts, stream)) = input.split_at_checked(4) else { return };
    let mut at: Vec<usize> = cuts.iter().map(|c| usize::from(*c).min(stream.len())).collect();
    at.extend([0, stream.len()]);
    at.sort_unstable();
    let whole = events(std::iter::once(stream));
    assert_eq!(events(at.windows(2).map(|w| &stream[w[0]..w[1]])), whole);
    assert_eq!(events(stream.chunks(1)), whole);
});
