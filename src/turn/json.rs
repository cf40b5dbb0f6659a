//! Metrics as JSON, written with no serializer between: what `serde_json` writes of the same, byte for byte, in a
//! fraction of the time. A property test holds the two together.

use memchr::memchr2;

use super::ecmascript::exact_whole;
use super::{Label, Millis, StepDetails, StepMetrics, StepTimes, StoredTurn, TokenCount, TurnMetrics, Usage};

// Each of these takes its value apart whole, so that a new field is not forgotten here.

impl TurnMetrics {
    pub(crate) fn write_json(&self, json: &mut Vec<u8>) {
        let Self { turn_id, usage, steps, duration, context_size } = self;
        json.extend_from_slice(br#"{"turnId":"#);
        write_id(turn_id.as_str(), json);
        write_usage(usage, json);
        json.extend_from_slice(br#","steps":["#);
        for (nth, step) in steps.iter().enumerate() {
            json.extend_from_slice(if nth == 0 { br#"{"stepId":"# } else { br#",{"stepId":"# });
            write_step(step, json);
        }
        json.push(b']');
        write_millis(br#","durationMs":"#, *duration, json);
        write_count(br#","contextSize":"#, *context_size, json);
        json.push(b'}');
    }
}

impl StoredTurn {
    pub(crate) fn write_json(&self, json: &mut Vec<u8>) {
        let Self {
            ordinal,
            sealed_at,
            ended_at,
            reason,
            model,
            provider,
            project,
            cache_write_1h_tokens,
            step_details,
            metrics,
        } = self;
        json.extend_from_slice(br#"{"ordinal":"#);
        write_number(ordinal.get(), json);
        json.extend_from_slice(br#","sealedAt":"#);
        write_number(sealed_at.get(), json);
        if let Some(ended_at) = ended_at {
            json.extend_from_slice(br#","endedAt":"#);
            write_number(ended_at.get(), json);
        }
        write_label(br#","reason":"#, Some(reason), json);
        write_label(br#","model":"#, model.as_ref(), json);
        write_label(br#","provider":"#, provider.as_ref(), json);
        write_label(br#","project":"#, project.as_ref(), json);
        write_count(br#","cacheWrite1hTokens":"#, *cache_write_1h_tokens, json);
        for (nth, details) in step_details.iter().enumerate() {
            json.extend_from_slice(if nth == 0 { br#","stepDetails":[{"stepId":"# } else { br#",{"stepId":"# });
            write_details(details, json);
        }
        if !step_details.is_empty() {
            json.push(b']');
        }
        json.extend_from_slice(br#","metrics":"#);
        metrics.write_json(json);
        json.push(b'}');
    }
}

/// Writes the details of a step, after their first key.
fn write_details(details: &StepDetails, json: &mut Vec<u8>) {
    let StepDetails { step_id, model, provider, cache_write_1h_tokens } = details;
    write_id(step_id.as_str(), json);
    write_label(br#","model":"#, model.as_ref(), json);
    write_label(br#","provider":"#, provider.as_ref(), json);
    write_count(br#","cacheWrite1hTokens":"#, *cache_write_1h_tokens, json);
    json.push(b'}');
}

/// A step after its first key.
fn write_step(step: &StepMetrics, json: &mut Vec<u8>) {
    let StepMetrics { step_id, usage, times: StepTimes { ttft, decode, gen_total } } = step;
    write_id(step_id.as_str(), json);
    write_usage(usage, json);
    write_millis(br#","ttftMs":"#, *ttft, json);
    write_millis(br#","decodeMs":"#, *decode, json);
    write_millis(br#","genTotalMs":"#, *gen_total, json);
    json.push(b'}');
}

fn write_usage(usage: &Usage, json: &mut Vec<u8>) {
    let Usage { input_tokens, output_tokens, cache_read_tokens, cache_write_tokens } = usage;
    write_count(br#","usage":{"inputTokens":"#, Some(*input_tokens), json);
    write_count(br#","outputTokens":"#, Some(*output_tokens), json);
    write_count(br#","cacheReadTokens":"#, *cache_read_tokens, json);
    write_count(br#","cacheWriteTokens":"#, *cache_write_tokens, json);
    json.push(b'}');
}

fn write_count(key: &[u8], count: Option<TokenCount>, json: &mut Vec<u8>) {
    if let Some(count) = count {
        json.extend_from_slice(key);
        write_number(count.get(), json);
    }
}

fn write_millis(key: &[u8], millis: Option<Millis>, json: &mut Vec<u8>) {
    let Some(millis) = millis else { return };
    json.extend_from_slice(key);
    match exact_whole(millis.get()) {
        Some(whole) => write_number(whole, json),
        None => json.extend_from_slice(ryu_js::Buffer::new().format_finite(millis.get()).as_bytes()),
    }
}

fn write_number(number: u64, json: &mut Vec<u8>) {
    json.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// An id holds no control characters, so that two are left which have to be escaped, and hardly ever stand in one.
fn write_id(id: &str, json: &mut Vec<u8>) {
    json.push(b'"');
    let mut rest = id.as_bytes();
    while let Some(at) = memchr2(b'"', b'\\', rest) {
        let (plain, escaped) = rest.split_at(at);
        json.extend_from_slice(plain);
        json.extend_from_slice(&[b'\\', escaped[0]]);
        rest = &escaped[1..];
    }
    json.extend_from_slice(rest);
    json.push(b'"');
}

/// A label may hold any text. It is no part of the metrics, which are what is read most.
fn write_label(key: &[u8], label: Option<&Label>, json: &mut Vec<u8>) {
    let Some(label) = label else { return };
    json.extend_from_slice(key);
    let mut escaped = serde_json::Serializer::new(json);
    // Writing a text to memory does not fail.
    let _ = serde::Serializer::serialize_str(&mut escaped, label.as_str());
}
