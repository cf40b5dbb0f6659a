use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::client::{ClientError, HttpReceipt, HttpTurnReceipt};
use super::super::output::plain;
use super::super::send::{SendError, Sender};
use super::affected_turns::{AffectedTurns, sealed_without, stays_open, unended};
use super::batch::LineBatch;
use super::error::IngestFailure;
use super::event_types::EventTypes;
use super::progress::UploadProgress;
use crate::http::{BadLines, SKIP_ADVICE};
use crate::turn::{ConversationId, Mention, TurnEventKind, TurnId, mentions, parse_line};

/// How many lines are sent at once after a bad line. An answer can list this many refused lines.
const SKIPPED_AT_ONCE: u64 = 100;
/// The maximum number of withheld conversations that are remembered.
const MAX_WITHHELD: usize = 10_000;
/// The maximum number of other warnings that a run shows.
const MAX_WARNINGS: u64 = 100;
/// The maximum number of turns that a run names because a line of them was refused.
const MAX_INCOMPLETE: u64 = 1000;
/// The maximum number of turns that a run names because their `done` was not sent.
const MAX_UNENDED: u64 = 100;

/// Sends batches in order, and handles what the server refuses.
pub(super) struct Upload {
    sender: Sender,
    pub(super) skip_bad: bool,
    pub(super) progress: UploadProgress,
    /// The input that is being sent.
    pub(super) input: Arc<str>,
    /// The types of the events in the input, counted until one event counts.
    pub(super) event_types: EventTypes,
    /// The number of bad lines that were skipped.
    pub(super) refused_lines: u64,
    /// The first line of the first conversation over a limit.
    pub(super) first_withheld: Option<(Arc<str>, u64)>,
    /// The conversations over a limit. No more of their events are sent, because these would seal turns without the
    /// refused events.
    withheld: HashSet<ConversationId>,
    withheld_lines: u64,
    /// The number of turns whose `done` was not sent.
    pub(super) unended: u64,
    /// The turns that refused lines mention.
    affected_turns: AffectedTurns,
    pub(super) warnings: u64,
    /// The number of warnings about turns of which a line was refused.
    pub(super) incomplete: u64,
}

/// Maps each turn in an answer to whether it was sealed before the batch was sent.
type SealedBefore<'a> = HashMap<(&'a ConversationId, &'a TurnId), bool>;

/// A batch without the lines of the withheld conversations.
struct Sendable {
    /// The lines, with a blank line in place of each withheld one.
    body: Vec<u8>,
    withheld_lines: u64,
    /// The turns that withheld lines would have ended, each with the position of the line in the batch, from 0.
    ends: Vec<(u64, ConversationId, TurnId)>,
}

/// The outcome of posting a batch.
enum Posted {
    Taken,
    /// The server took nothing, because this line of the batch is bad.
    BadLine {
        line: u64,
        error: String,
    },
}

impl Upload {
    pub(super) fn new(sender: Sender, skip_bad: bool) -> Self {
        Self {
            sender,
            skip_bad,
            progress: UploadProgress::new(),
            input: Arc::default(),
            event_types: EventTypes::default(),
            refused_lines: 0,
            first_withheld: None,
            withheld: HashSet::new(),
            withheld_lines: 0,
            unended: 0,
            affected_turns: AffectedTurns::default(),
            warnings: 0,
            incomplete: 0,
        }
    }

    /// Returns the number of conversations over a limit.
    pub(super) fn withheld_conversations(&self) -> usize {
        self.withheld.len()
    }

    /// Returns the line of the current input from which a new run may continue. `None` if conversations are over a
    /// limit: a new run would not withhold their events, and would seal turns without the refused events.
    pub(super) fn next_line(&self) -> Option<u64> {
        self.withheld.is_empty().then(|| self.progress.acknowledged_lines.saturating_add(1))
    }

    /// Sends a batch until all of it is acknowledged or reported as refused.
    pub(super) async fn send(&mut self, batch: LineBatch) -> Result<(), IngestFailure> {
        if !self.progress.has_accepted() {
            self.event_types.look_at(&batch.body);
        }
        let mut rest = batch;
        while rest.lines > 0 {
            let Posted::BadLine { line, error } = self.post(&rest, BadLines::Refuse).await? else { return Ok(()) };
            // The server refused the whole batch because of this line. The lines before it are good; the lines after it
            // are not checked yet.
            let (good, from_bad) = rest.split(line - 1);
            if good.lines > 0
                && let Posted::BadLine { line, error } = self.post(&good, BadLines::Refuse).await?
            {
                return Err(IngestFailure::BadLine { line: good.first_line + line - 1, error });
            }
            if !self.skip_bad {
                let line = from_bad.body.split(|byte| *byte == b'\n').next().unwrap_or_default();
                self.tell_open(from_bad.first_line, &mentions(line));
                return Err(IngestFailure::BadLine { line: from_bad.first_line, error });
            }
            let (some, after) = from_bad.split(SKIPPED_AT_ONCE);
            if let Posted::BadLine { line, error } = self.post(&some, BadLines::Skip).await? {
                return Err(IngestFailure::BadLine { line: some.first_line + line - 1, error });
            }
            rest = after;
        }
        Ok(())
    }

    /// Reports the turns that a refused line would have ended.
    fn tell_open(&mut self, line: u64, mentions: &[Mention]) {
        for Mention { conversation_id, turn_id, .. } in mentions.iter().filter(|mention| mention.is_done) {
            let warning = stays_open(&self.input, line, conversation_id, turn_id);
            self.warn_of_incomplete(&warning);
        }
    }

    /// Reports a bad line that is not sent at all.
    pub(super) fn refuse(&mut self, line: u64, error: String, mentions: Vec<Mention>) -> Result<(), IngestFailure> {
        if !self.progress.has_accepted() {
            self.event_types.look_at_long(&mentions);
        }
        if self.skip_bad {
            self.note_refused(line, &error);
        }
        self.tell_open(line, &mentions);
        if !self.skip_bad {
            return Err(IngestFailure::BadLine { line, error });
        }
        for mention in mentions {
            self.affected_turns.add(mention, &self.input, line);
        }
        self.progress.acknowledge_to(line);
        Ok(())
    }

    fn note_refused(&mut self, line: u64, error: &str) {
        self.refused_lines += 1;
        self.progress.is_any_refused = true;
        self.progress.note(&format!("{}: line {line} is refused: {}", self.input, plain(error)));
    }

    fn warn_of_incomplete(&mut self, warning: &str) {
        self.incomplete += 1;
        if self.incomplete <= MAX_INCOMPLETE {
            self.progress.note(&plain(warning));
        }
    }

    async fn post(&mut self, batch: &LineBatch, bad_lines: BadLines) -> Result<Posted, IngestFailure> {
        let Sendable { body, withheld_lines, ends } = self.without_withheld(&batch.body);
        let progress = &self.progress;
        let is_repeated = Cell::new(false);
        let note = |line: &str| {
            is_repeated.set(true);
            progress.note(line);
        };
        match self.sender.send(body, bad_lines, note).await {
            Ok(receipt) => {
                let is_first = !self.progress.has_ever_accepted() && self.progress.acknowledged_lines == 0;
                self.progress.advance(batch, &receipt);
                self.tell_withheld(batch, withheld_lines, &ends);
                self.tell(batch, receipt, is_repeated.get(), is_first)?;
                Ok(Posted::Taken)
            }
            Err(SendError::Refused(ClientError::Refused { status: 400, error, line: Some(line), .. }))
                if (1..=batch.lines).contains(&line) =>
            {
                // The server counts lines from the start of the batch, and its messages do so too.
                let error = error.strip_prefix(&format!("line {line}: ")).unwrap_or(&error);
                // The server's message advises `?bad=skip`, but this command has an option for that.
                let error = error.strip_suffix(SKIP_ADVICE).unwrap_or(error).to_owned();
                Ok(Posted::BadLine { line, error })
            }
            Err(cause) => {
                let last = batch.first_line + batch.lines.saturating_sub(1);
                Err(IngestFailure::Batch { first: batch.first_line, last, cause: Box::new(cause) })
            }
        }
    }

    /// Reports the refusals and warnings of an answer. If the batch was sent repeatedly, its duplicates may have been
    /// sealed by an earlier attempt whose answer was lost. A conversation that is refused now may have had accepted
    /// events in earlier batches.
    fn tell(
        &mut self,
        batch: &LineBatch,
        receipt: HttpReceipt,
        is_repeated: bool,
        is_first: bool,
    ) -> Result<(), IngestFailure> {
        let mut sealed_before = SealedBefore::new();
        for HttpTurnReceipt { conversation_id, turn_id, duplicate, .. } in &receipt.sealed {
            *sealed_before.entry((conversation_id, turn_id)).or_insert(true) &= duplicate;
            if (!duplicate || is_repeated)
                && let Some(warning) = self.affected_turns.seal(conversation_id, turn_id)
            {
                self.warn_of_incomplete(&warning);
            }
        }
        let lines: Vec<&[u8]> = match &*receipt.refused {
            [] => Vec::new(),
            _ => batch.body.split(|byte| *byte == b'\n').collect(),
        };
        for refused in receipt.refused {
            let nth = refused.line.saturating_sub(1);
            let line = batch.first_line + nth;
            let Some(conversation_id) = refused.conversation_id else {
                self.note_refused(line, &refused.error);
                let bytes = usize::try_from(nth).ok().and_then(|nth| lines.get(nth));
                self.note_affected(
                    bytes.map(|bytes| mentions(bytes)).unwrap_or_default(),
                    line,
                    &sealed_before,
                    is_repeated,
                );
                continue;
            };
            self.progress.is_any_refused = true;
            // The message of the server is only about the events of this batch.
            let error = if is_first {
                refused.error
            } else {
                refused.error.replacen(": no event of", ": no further event of", 1)
            };
            self.progress.note(&format!("{}: line {line}: {}", self.input, plain(&error)));
            self.first_withheld.get_or_insert_with(|| (self.input.clone(), line));
            self.withheld.insert(conversation_id);
            if self.withheld.len() > MAX_WITHHELD {
                return Err(IngestFailure::TooManyRefused { limit: MAX_WITHHELD });
            }
        }
        for warning in receipt.warnings {
            if let Some(warning) = in_lines_of_input(&warning, batch.first_line) {
                self.warn_of_incomplete(&format!("{}: {warning}", self.input));
                continue;
            }
            self.warnings += 1;
            if self.warnings <= MAX_WARNINGS {
                self.progress.note(&format!("{}: {}", self.input, plain(&warning)));
            }
        }
        Ok(())
    }

    /// Records the turns that a refused line of a batch mentions. If this batch sealed a turn or left it open, the
    /// server itself reports that.
    fn note_affected(
        &mut self,
        mentions: Vec<Mention>,
        line: u64,
        sealed_before: &SealedBefore<'_>,
        is_repeated: bool,
    ) {
        for mention in mentions {
            let Mention { conversation_id, turn_id, .. } = &mention;
            match sealed_before.get(&(conversation_id, turn_id)) {
                None => self.affected_turns.add(mention, &self.input, line),
                // The batch was sent before, so the server may have sealed the turn in that attempt.
                Some(true) if is_repeated => {
                    let warning = sealed_without(&self.input, line, conversation_id, turn_id);
                    self.warn_of_incomplete(&warning);
                }
                Some(_) => {}
            }
        }
    }

    /// Removes the lines of withheld conversations from a batch.
    fn without_withheld(&self, body: &[u8]) -> Sendable {
        let mut sendable = Sendable { body: Vec::with_capacity(body.len()), withheld_lines: 0, ends: Vec::new() };
        if self.withheld.is_empty() {
            sendable.body.extend_from_slice(body);
            return sendable;
        }
        for (nth, line) in (0..).zip(body.split_inclusive(|byte| *byte == b'\n')) {
            match parse_line(line) {
                Ok(Some(event)) if self.withheld.contains(&event.conversation_id) => {
                    sendable.withheld_lines += 1;
                    sendable.body.push(b'\n');
                    if matches!(event.event.kind, TurnEventKind::Done(_)) {
                        sendable.ends.push((nth, event.conversation_id, event.event.turn_id));
                    }
                }
                _ => sendable.body.extend_from_slice(line),
            }
        }
        sendable
    }

    /// Counts the withheld lines of an acknowledged batch, and reports the turns that they would have ended.
    fn tell_withheld(&mut self, batch: &LineBatch, lines: u64, ends: &[(u64, ConversationId, TurnId)]) {
        self.withheld_lines += lines;
        self.progress.is_any_refused |= lines > 0;
        for (nth, conversation_id, turn_id) in ends {
            self.unended += 1;
            if self.unended <= MAX_UNENDED {
                let warning = unended(&self.input, batch.first_line + nth, conversation_id, turn_id);
                self.progress.note(&plain(&warning));
            }
        }
    }

    /// Reports at the end how many events were not sent and how many warnings were not shown.
    pub(super) fn tell_rest(&self) {
        if self.withheld_lines > 0 {
            self.progress.note(&format!(
                "{} more events of conversations over a limit were not sent: their turns would be sealed without the \
                 events that were refused. Raise the limit and send everything again",
                self.withheld_lines
            ));
        }
        if self.unended > MAX_UNENDED {
            let more = self.unended - MAX_UNENDED;
            self.progress.note(&format!("{more} more turns stay open, because their `done` was not sent"));
        }
        if self.warnings > MAX_WARNINGS {
            self.progress.note(&format!("{} more warnings", self.warnings - MAX_WARNINGS));
        }
        if self.incomplete > MAX_INCOMPLETE {
            let more = self.incomplete - MAX_INCOMPLETE;
            self.progress.note(&format!("{more} more warnings about turns of which a line was refused"));
        }
        if let Some(overflow) = self.affected_turns.overflow() {
            self.progress.note(&overflow);
        }
    }
}

/// Replaces the line number within the batch by the one within the input. Returns `None` if the warning is not about a
/// refused line.
fn in_lines_of_input(warning: &str, first_line: u64) -> Option<String> {
    const REFUSED: &str = ", which was refused";
    let (before, after) = warning.split_at(warning.find(REFUSED)?);
    let (text, number) = before.split_at(before.trim_end_matches(|c: char| c.is_ascii_digit()).len());
    let line = number.parse::<u64>().ok().filter(|_| text.ends_with("line "))?;
    Some(format!("{text}{}{after}", first_line.saturating_add(line.saturating_sub(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_has_the_line_number_of_the_input() {
        let told = in_lines_of_input("turn `t` was sealed without line 2, which was refused", 1001);
        assert_eq!(told.unwrap(), "turn `t` was sealed without line 1002, which was refused");
        for other in [
            "turn `t7`: cut",
            "turn `\u{e9}7, which was refused`: cut",
            "\u{e9}, which was refused",
            ", which was refused",
        ] {
            assert_eq!(in_lines_of_input(other, 1001), None);
        }
    }
}
