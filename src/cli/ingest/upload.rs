use std::collections::HashSet;

use super::super::client::{BadLines, ClientError, Receipt};
use super::super::output::plain;
use super::super::send::{SendError, Sender};
use super::batch::Batch;
use super::error::IngestFailure;
use super::progress::Progress;
use super::seen::Seen;
use crate::turn::{ConversationId, parse_line};

/// How many lines are sent at once after a bad line: no more than the server names in an answer.
const SKIPPED_AT_ONCE: u64 = 100;
/// The maximum number of withheld conversations that are remembered.
const MAX_WITHHELD: usize = 10_000;
/// The maximum number of warnings that a run shows.
const MAX_WARNINGS: u64 = 100;

/// Sends batches in order, and handles what the server refuses.
pub(super) struct Upload {
    sender: Sender,
    pub(super) skip_bad: bool,
    pub(super) progress: Progress,
    /// The input that is being sent.
    pub(super) input: String,
    /// The types of its events, until one of them counts.
    pub(super) seen: Seen,
    /// The number of bad lines that were skipped.
    pub(super) refused_lines: u64,
    /// The first line of the first conversation over a limit.
    pub(super) first_withheld: Option<(String, u64)>,
    /// The conversations over a limit. No more of their events are sent: they would seal turns without the refused
    /// events.
    withheld: HashSet<ConversationId>,
    withheld_lines: u64,
    warnings: u64,
}

/// The outcome of posting a batch.
enum Posted {
    Taken,
    /// Nothing was taken, because this line of the batch is bad.
    Bad {
        line: u64,
        error: String,
    },
}

impl Upload {
    pub(super) fn new(sender: Sender, skip_bad: bool) -> Self {
        Self {
            sender,
            skip_bad,
            progress: Progress::new(),
            input: String::new(),
            seen: Seen::default(),
            refused_lines: 0,
            first_withheld: None,
            withheld: HashSet::new(),
            withheld_lines: 0,
            warnings: 0,
        }
    }

    /// The number of conversations over a limit.
    pub(super) fn withheld_conversations(&self) -> usize {
        self.withheld.len()
    }

    /// Sends a batch until all of it is acknowledged or reported as refused.
    pub(super) async fn send(&mut self, batch: Batch) -> Result<(), IngestFailure> {
        if !self.progress.has_accepted() {
            self.seen.look_at(&batch.body);
        }
        let mut rest = batch;
        while rest.lines > 0 {
            let Posted::Bad { line, error } = self.post(&rest, BadLines::Refuse).await? else { return Ok(()) };
            // The server refused the whole batch. The lines before the bad one are good; those after it may be.
            let (good, from_bad) = rest.split(line - 1);
            if good.lines > 0
                && let Posted::Bad { line, error } = self.post(&good, BadLines::Refuse).await?
            {
                return Err(IngestFailure::BadLine { line: good.first_line + line - 1, error });
            }
            if !self.skip_bad {
                return Err(IngestFailure::BadLine { line: from_bad.first_line, error });
            }
            let (some, after) = from_bad.split(SKIPPED_AT_ONCE);
            if let Posted::Bad { line, error } = self.post(&some, BadLines::Skip).await? {
                return Err(IngestFailure::BadLine { line: some.first_line + line - 1, error });
            }
            rest = after;
        }
        Ok(())
    }

    /// Skips a bad line that is not sent at all.
    pub(super) fn refuse(&mut self, line: u64, error: String) -> Result<(), IngestFailure> {
        if !self.skip_bad {
            return Err(IngestFailure::BadLine { line, error });
        }
        self.note_refused(line, &error);
        self.progress.acknowledge_to(line);
        Ok(())
    }

    fn note_refused(&mut self, line: u64, error: &str) {
        self.refused_lines += 1;
        self.progress.note(&format!("{}: line {line} is refused: {}", self.input, plain(error)));
    }

    async fn post(&mut self, batch: &Batch, bad_lines: BadLines) -> Result<Posted, IngestFailure> {
        let body = self.without_withheld(&batch.body);
        let progress = &self.progress;
        match self.sender.send(body, bad_lines, |line| progress.note(line)).await {
            Ok(receipt) => {
                self.progress.advance(batch, &receipt);
                self.tell(batch, receipt)?;
                Ok(Posted::Taken)
            }
            Err(SendError::Refused(ClientError::Refused { status: 400, error, line: Some(line), .. }))
                if (1..=batch.lines).contains(&line) =>
            {
                // The server counts lines from the start of the batch, also in its messages.
                let error = error.strip_prefix(&format!("line {line}: ")).unwrap_or(&error).to_owned();
                Ok(Posted::Bad { line, error })
            }
            Err(error) => {
                let cause = match &error {
                    SendError::GaveUp { source, .. } => format!("{error}: {source}"),
                    error => error.to_string(),
                };
                let last = batch.first_line + batch.lines.saturating_sub(1);
                Err(IngestFailure::Batch { first: batch.first_line, last, cause })
            }
        }
    }

    /// Reports the refusals and warnings of an answer.
    fn tell(&mut self, batch: &Batch, receipt: Receipt) -> Result<(), IngestFailure> {
        for refused in receipt.refused {
            let line = batch.first_line + refused.line.saturating_sub(1);
            let Some(conversation_id) = refused.conversation_id else {
                self.note_refused(line, &refused.error);
                continue;
            };
            self.progress.note(&format!("{}: line {line}: {}", self.input, plain(&refused.error)));
            self.first_withheld.get_or_insert_with(|| (self.input.clone(), line));
            self.withheld.insert(conversation_id);
            if self.withheld.len() > MAX_WITHHELD {
                return Err(IngestFailure::TooManyRefused { limit: MAX_WITHHELD });
            }
        }
        for warning in receipt.warnings {
            self.warnings += 1;
            if self.warnings <= MAX_WARNINGS {
                let warning = in_lines_of_input(&plain(&warning), batch.first_line);
                self.progress.note(&format!("{}: {warning}", self.input));
            }
        }
        Ok(())
    }

    /// Returns the lines of a batch with a blank line in place of each line of a withheld conversation.
    fn without_withheld(&mut self, body: &[u8]) -> Vec<u8> {
        if self.withheld.is_empty() {
            return body.to_vec();
        }
        let mut kept = Vec::with_capacity(body.len());
        for line in body.split_inclusive(|byte| *byte == b'\n') {
            let event = parse_line(line);
            if event.is_ok_and(|event| event.is_some_and(|event| self.withheld.contains(&event.conversation_id))) {
                self.withheld_lines += 1;
                kept.push(b'\n');
            } else {
                kept.extend_from_slice(line);
            }
        }
        kept
    }

    /// Reports at the end how much was not sent or not shown.
    pub(super) fn tell_rest(&self) {
        if self.withheld_lines > 0 {
            self.progress.note(&format!(
                "{} more events of conversations over a limit were not sent: their turns would be sealed without the \
                 events that were refused. Raise the limit and send everything again",
                self.withheld_lines
            ));
        }
        if self.warnings > MAX_WARNINGS {
            self.progress.note(&format!("{} more warnings", self.warnings - MAX_WARNINGS));
        }
    }
}

/// Renumbers the line in a warning from the batch to the input.
fn in_lines_of_input(warning: &str, first_line: u64) -> String {
    const REFUSED: &str = ", which was refused";
    let number = || {
        let end = warning.find(REFUSED)?;
        let start = warning[..end].rfind(|c: char| !c.is_ascii_digit())? + 1;
        let line: u64 = warning[start..end].parse().ok()?;
        Some((start, end, line))
    };
    match number() {
        Some((start, end, line)) => {
            format!("{}{}{}", &warning[..start], first_line + line.saturating_sub(1), &warning[end..])
        }
        None => warning.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_has_the_lines_of_the_input() {
        let told = in_lines_of_input("turn `t` was sealed without line 2, which was refused", 1001);
        assert_eq!(told, "turn `t` was sealed without line 1002, which was refused");
        assert_eq!(in_lines_of_input("turn `t7`: cut", 1001), "turn `t7`: cut");
    }
}
