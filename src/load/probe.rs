//! Single requests: is the server ready, what is its model called, how many tokens is a word.

use std::sync::Arc;
use std::time::Duration;

use mio::{Poll, Waker};
use tokio::sync::oneshot;

use super::endpoint::Endpoint;
use super::link::{Link, Loaded};
use super::pace::Single;
use super::reactor::{Reactor, WAKE};
use super::slot::unmeasured;
use super::stop::{Stop, StopGuard};
use super::{LoadError, Target, TlsConfig, Tokenizer, tls};
use crate::stats::{RequestRecord, Status};
use crate::wire::request::{Prompt, check_api};
use crate::wire::{Api, Dialect};
use crate::workload::prompts::{PlannedRequest, TOKEN_IDS, TextCalibration, calibration_generator, sample_text};

/// Words of the two prompts that calibrate text.
const CALIBRATION_WORDS: (u32, u32) = (32, 288);

/// What a one-token request said about a server.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeOutcome {
    /// It generates.
    Ready { ttft: Option<Duration>, latency: Duration, input_tokens: Option<u64>, output_tokens: Option<u64> },
    /// It does not answer yet, or not well: no connection, a reset, 429, 5xx. Worth another try.
    NotReady { message: String },
    /// It understood the request and refuses it (4xx): trying again will not help.
    Refused { status: u16, message: String },
}

/// Asks for one token over the API that the target speaks by default.
pub async fn one_token(target: &Target, timeout: Duration) -> Result<ProbeOutcome, LoadError> {
    let api = target.api.default;
    check_api(&target.api, api)?;
    let ids = target.api.dialect == Dialect::Openai && api == Api::Completions && target.api.token_ids;
    let prompt = if ids {
        Prompt::Ids((TOKEN_IDS.start..TOKEN_IDS.start + 8).collect())
    } else {
        Prompt::Text(sample_text(8, &[b"probe"]))
    };
    let record = match single(target, api, prompt, timeout).await {
        Err(LoadError::Unreachable { message, .. }) => return Ok(ProbeOutcome::NotReady { message }),
        other => other?,
    };
    let message = record.error.as_deref().unwrap_or("no answer").to_string();
    Ok(match (record.status, record.http_status) {
        (Status::Ok, _) => ProbeOutcome::Ready {
            ttft: record.ttft_ns().map(Duration::from_nanos),
            latency: Duration::from_nanos(record.end_ns - record.start_ns),
            input_tokens: record.input_tokens.map(u64::from),
            output_tokens: record.output_tokens.map(u64::from),
        },
        (_, 408 | 425 | 429) => ProbeOutcome::NotReady { message },
        (_, status @ 400..500) => ProbeOutcome::Refused { status, message },
        _ => ProbeOutcome::NotReady { message },
    })
}

/// Measures how many tokens the server makes of a text of known words: two prompts of different lengths, one token asked
/// of each. A server that does not count its input leaves one token a word assumed.
pub async fn calibrate_text(
    target: &Target,
    api: Api,
    salt: &[u8],
    timeout: Duration,
) -> Result<TextCalibration, LoadError> {
    let (short, long) = CALIBRATION_WORDS;
    let mut counted = [0; 2];
    for (count, words) in counted.iter_mut().zip([short, long]) {
        let prompt = Prompt::Text(sample_text(words, &[salt, &words.to_le_bytes()]));
        let record = single(target, api, prompt, timeout).await?;
        if record.status != Status::Ok {
            let message = record.error.as_deref().unwrap_or("no answer").to_string();
            return Err(LoadError::Warmup { url: target.base_url.clone(), n: 1, message });
        }
        match record.input_tokens {
            Some(n) => *count = u64::from(n),
            None => return Ok(TextCalibration::default()),
        }
    }
    Ok(TextCalibration::from_points((short, counted[0]), (long, counted[1])).unwrap_or_default())
}

/// Tokens that the server adds to prompts of the tokenizer's text: begin-of-sequence, chat template. Two prompts of
/// different lengths tell it, which must be right about both. `None` when the server's counts show another tokenizer, and
/// it need not be the same. A server that does not count its input is taken to add what the tokenizer itself adds.
pub async fn calibrate_tokens(
    target: &Target,
    tokenizer: &Tokenizer,
    api: Api,
    salt: &[u8],
    timeout: Duration,
) -> Result<Option<u32>, LoadError> {
    let (short, long) = CALIBRATION_WORDS;
    let mut overhead = None;
    for tokens in [short, long] {
        let mut text = String::new();
        tokenizer.text.push(&mut text, &mut calibration_generator(&[salt, &tokens.to_le_bytes()]), tokens);
        let record = single(target, api, Prompt::Text(text), timeout).await?;
        if record.status != Status::Ok {
            let message = record.error.as_deref().unwrap_or("no answer").to_string();
            return Err(LoadError::Warmup { url: target.base_url.clone(), n: 1, message });
        }
        let Some(counted) = record.input_tokens else { return Ok(Some(tokenizer.text.special_tokens())) };
        let added = counted.checked_sub(tokens);
        if added.is_none() || overhead.is_some_and(|first| Some(first) != added) {
            if !tokenizer.required {
                return Ok(None);
            }
            let made = tokens + overhead.unwrap_or(0);
            return Err(LoadError::Tokenizer { url: target.base_url.clone(), made, counted: counted.into() });
        }
        overhead = added;
    }
    Ok(overhead)
}

/// Sends one request of one token on a connection of its own. Dropping the future gives it up.
async fn single(target: &Target, api: Api, prompt: Prompt, timeout: Duration) -> Result<RequestRecord, LoadError> {
    let endpoint = Endpoint::resolve(target).await?;
    let link = Arc::new(Link::new(endpoint, target, api, 0.0, true));
    let planned = PlannedRequest { prompt, input_tokens: None, output_tokens: 1, seed: None, cancel: None };
    let request = link.load(0, &planned, Vec::new())?;
    let poll = Poll::new().map_err(LoadError::Thread)?;
    let waker = Waker::new(poll.registry(), WAKE).map_err(LoadError::Thread)?;
    let stop = Arc::new(Stop::new(vec![waker]));
    let _given_up = StopGuard(stop.clone());
    let (send, receive) = oneshot::channel();
    let body = move || {
        // Nobody waits for it when it was given up.
        let _ = send.send(exchange(link, request, poll, stop, timeout));
    };
    std::thread::Builder::new().name("probe".into()).spawn(body).map_err(LoadError::Thread)?;
    receive.await.unwrap_or(Err(LoadError::Worker))
}

fn exchange(
    link: Arc<Link>,
    request: Loaded,
    poll: Poll,
    stop: Arc<Stop>,
    timeout: Duration,
) -> Result<RequestRecord, LoadError> {
    let mut reactor = Reactor::new(poll, link, stop, unmeasured(timeout)).map_err(LoadError::Thread)?;
    let mut pace = Single::begin(&mut reactor, request);
    reactor.drive(&mut pace)?;
    Ok(pace.record.expect("the pace is finished when there is a record"))
}

/// Largest list of models that is read.
const MAX_LIST: usize = 4 << 20;

/// The name of the first model that the server lists.
pub async fn discover_model(target: &Target, timeout: Duration) -> Result<String, LoadError> {
    let models = served_models(target, timeout).await?;
    models.into_iter().next().ok_or_else(|| LoadError::Models {
        url: target.base_url.clone(),
        message: format!("{} lists none; name the model instead", models_url(target)),
    })
}

/// The names of the models that the server lists, in its order.
pub async fn served_models(target: &Target, timeout: Duration) -> Result<Vec<String>, LoadError> {
    let url = models_url(target);
    let failed = |message: String| LoadError::Models { url: target.base_url.clone(), message };
    let client = control_client(target, timeout).await?;
    let mut answer = client.get(&url).send().await.map_err(|e| failed(with_causes(&e)))?;
    let status = answer.status();
    if !status.is_success() {
        return Err(failed(format!("{url} answers HTTP {}; name the model instead", status.as_u16())));
    }
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|e| failed(with_causes(&e)))? {
        body.extend_from_slice(&part);
        if body.len() > MAX_LIST {
            return Err(failed(format!("{url} answers more than {MAX_LIST} bytes; name the model instead")));
        }
    }
    let list: serde_json::Value =
        serde_json::from_slice(&body).map_err(|e| failed(format!("{url} answers what is no JSON: {e}")))?;
    let data = list.get("data").and_then(serde_json::Value::as_array);
    Ok(data.into_iter().flatten().filter_map(|m| Some(m.get("id")?.as_str()?.to_string())).collect())
}

fn models_url(target: &Target) -> String {
    let path = target.api.models.as_deref().unwrap_or("/v1/models");
    format!("{}{path}", target.base_url.trim_end_matches('/'))
}

/// A client for the few requests around a measurement: the target's headers and TLS, no proxy, no redirects.
pub async fn control_client(target: &Target, timeout: Duration) -> Result<reqwest::Client, LoadError> {
    // Checks the URL as the load generator would, and the headers.
    Endpoint::resolve(target).await?;
    // Without TLS there is no need for the system's authorities, which a minimal container lacks. A redirect could lead
    // to TLS after all, and to another server: it is not followed.
    let tls = if target.base_url.starts_with("https") {
        target.tls.clone()
    } else {
        TlsConfig { insecure: true, ..TlsConfig::default() }
    };
    let mut headers = reqwest::header::HeaderMap::new();
    for (name, value) in &target.headers {
        let known = name.parse::<reqwest::header::HeaderName>().ok().zip(value.parse().ok());
        let (key, value) = known.ok_or_else(|| LoadError::Header {
            name: name.clone(),
            message: "has characters that no header may hold",
        })?;
        headers.append(key, value);
    }
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(timeout)
        .default_headers(headers)
        .tls_backend_preconfigured(tls::client_config(&tls)?)
        .build()
        .map_err(|e| LoadError::Unreachable { url: target.base_url.clone(), message: with_causes(&e) })
}

/// An error with everything below it: reqwest's own text names only the URL.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(&format!(": {e}"));
        cause = e.source();
    }
    text
}
