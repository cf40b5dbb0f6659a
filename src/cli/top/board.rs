//! The state of the view: what the server told, folded. Pure; the caller says what time it is.

use std::collections::{HashMap, VecDeque};

use super::minutes::{MINUTE_MS, Minutes, WINDOW};
use super::news::{News, TurnCost};
use super::sums::Sums;
use crate::cli::answers::TurnSoFar;
use crate::report::{CostFigures, report_time};
use crate::turn::{ConversationId, Label, Millis, StepMetrics, StoredTurn, TurnId, Usage};

/// How many open turns are held. A turn beyond that shows again when it changes.
const MAX_OPEN: usize = 1000;
/// How many sealed turns are held, far more than fit a screen. An open turn that one of them has ended is not shown.
const MAX_SEALED: usize = 500;
/// For how many sealed turns a cost may still come.
const MAX_UNCOSTED: usize = 10_000;

/// A turn that is being worked on.
#[derive(Debug)]
pub(super) struct OpenRow {
    pub(super) conversation_id: ConversationId,
    pub(super) turn_id: TurnId,
    pub(super) model: Option<Label>,
    pub(super) steps: usize,
    pub(super) usage: Usage,
    /// The moment at which this program first saw the turn. It may have begun earlier.
    pub(super) seen_at: i64,
}

/// A turn that was sealed while this program ran.
#[derive(Debug)]
pub(super) struct SealedRow {
    pub(super) conversation_id: ConversationId,
    pub(super) turn_id: TurnId,
    pub(super) ordinal: u64,
    /// Its report time.
    pub(super) at: i64,
    pub(super) reason: Label,
    pub(super) steps: usize,
    pub(super) usage: Usage,
    /// The longest time to a first token, in milliseconds.
    pub(super) slowest_ttft: Option<f64>,
    /// `None` as long as the server has not told it.
    pub(super) cost: Option<CostFigures>,
}

/// Whether the server can be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Live,
    Lost {
        /// The moment at which the connection was lost.
        since: i64,
        why: String,
    },
}

/// Everything that is shown. All moments are by the server's clock, in milliseconds since 1970.
#[derive(Debug)]
pub(super) struct Board {
    link: Link,
    /// The open turns, the one that changed last at the end.
    open: Vec<OpenRow>,
    /// The sealed turns, the latest one first.
    sealed: VecDeque<SealedRow>,
    /// The moment at which both lists were emptied. What was sealed or worked on before may be missing in them.
    listed_since: i64,
    minutes: Minutes,
    /// The turns whose costs have not come, with the minutes in which they count.
    uncosted: HashMap<(ConversationId, u64), i64>,
    sums: Sums,
    /// Why the sums are not the latest ones.
    no_sums: Option<String>,
}

impl Board {
    /// Returns the board of a program that starts now, with the first sums.
    pub(super) fn new(sums: Sums, now: i64) -> Self {
        let mut minutes = Minutes::since(now);
        // Nothing is followed before the feed answers.
        minutes.pause(now);
        Self {
            link: Link::Connecting,
            open: Vec::new(),
            sealed: VecDeque::new(),
            listed_since: now,
            minutes,
            uncosted: HashMap::new(),
            sums,
            no_sums: None,
        }
    }

    pub(super) fn take(&mut self, news: News, now: i64) {
        match news {
            News::Connected { goes_on } => {
                self.link = Link::Live;
                // What was erased meanwhile is not told.
                self.empty_lists(now);
                if goes_on {
                    self.minutes.resume();
                } else {
                    self.minutes = Minutes::since(now);
                }
            }
            News::Lost(why) => {
                let since = if let Link::Lost { since, .. } = self.link { since } else { now };
                self.link = Link::Lost { since, why };
                self.minutes.pause(now);
            }
            News::Open(conversation_id, turn) => self.take_open(conversation_id, *turn, now),
            News::Sealed(conversation_id, turn) => self.take_sealed(conversation_id, &turn, now),
            News::Reset => {
                self.empty_lists(now);
                self.uncosted.clear();
                self.minutes = Minutes::since(now);
            }
            News::Erased(id) => {
                // The minutes and the sums keep what was spent.
                self.open.retain(|turn| turn.conversation_id != id);
                self.sealed.retain(|turn| turn.conversation_id != id);
            }
            News::Costs(costs) => costs.into_iter().for_each(|cost| self.take_cost(cost)),
            News::Sums(sums) => {
                self.sums = *sums;
                self.no_sums = None;
            }
            News::NoSums(why) => self.no_sums = Some(why),
        }
    }

    fn empty_lists(&mut self, now: i64) {
        self.open.clear();
        self.sealed.clear();
        self.listed_since = now;
    }

    fn take_open(&mut self, conversation_id: ConversationId, turn: TurnSoFar, now: i64) {
        let TurnSoFar { turn_id, model, usage, steps } = turn;
        let is = |conversation: &ConversationId, turn: &TurnId| *conversation == conversation_id && *turn == turn_id;
        // Open turns and sealed ones come on two ways, so an open turn may come after it was sealed.
        if self.sealed.iter().any(|row| is(&row.conversation_id, &row.turn_id)) {
            return;
        }
        let known = self.open.iter().position(|row| is(&row.conversation_id, &row.turn_id));
        let seen_at = known.map_or(now, |known| self.open.remove(known).seen_at);
        if self.open.len() == MAX_OPEN {
            self.open.remove(0);
        }
        let steps = steps.len();
        self.open.push(OpenRow { conversation_id, turn_id, model, steps, usage, seen_at });
    }

    fn take_sealed(&mut self, conversation_id: ConversationId, turn: &StoredTurn, now: i64) {
        let metrics = &turn.metrics;
        self.open.retain(|row| row.conversation_id != conversation_id || row.turn_id != metrics.turn_id);
        let at = i64::try_from(report_time(turn).get()).unwrap_or(i64::MAX);
        let ordinal = turn.ordinal.get();
        let minute = self.minutes.add(at, metrics.usage, now);
        let first = now.div_euclid(MINUTE_MS) - WINDOW;
        if self.uncosted.len() >= MAX_UNCOSTED {
            self.uncosted.retain(|_, minute| *minute > first);
        }
        if let Some(minute) = minute
            && self.uncosted.len() < MAX_UNCOSTED
        {
            self.uncosted.insert((conversation_id.clone(), ordinal), minute);
        }
        self.sealed.truncate(MAX_SEALED - 1);
        self.sealed.push_front(SealedRow {
            conversation_id,
            turn_id: metrics.turn_id.clone(),
            ordinal,
            at,
            reason: turn.reason.clone(),
            steps: metrics.steps.len(),
            usage: metrics.usage,
            slowest_ttft: slowest_ttft(&metrics.steps),
            cost: None,
        });
    }

    fn take_cost(&mut self, TurnCost { conversation_id, ordinal, cost }: TurnCost) {
        let of_turn = |row: &&mut SealedRow| row.ordinal == ordinal && row.conversation_id == conversation_id;
        if let Some(row) = self.sealed.iter_mut().find(of_turn) {
            row.cost = Some(cost.clone());
        }
        if let Some(minute) = self.uncosted.remove(&(conversation_id, ordinal)) {
            self.minutes.add_cost(minute, &cost);
        }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// The open turns, the one that changed last first.
    pub(super) fn open(&self) -> impl ExactSizeIterator<Item = &OpenRow> {
        self.open.iter().rev()
    }

    /// The sealed turns, the latest one first.
    pub(super) fn sealed(&self) -> impl ExactSizeIterator<Item = &SealedRow> {
        self.sealed.iter()
    }

    /// The moment from which on the lists have everything.
    pub(super) fn listed_since(&self) -> i64 {
        self.listed_since
    }

    pub(super) fn minutes(&self) -> &Minutes {
        &self.minutes
    }

    pub(super) fn sums(&self) -> &Sums {
        &self.sums
    }

    /// Why the sums are not the latest ones, if they are not.
    pub(super) fn no_sums(&self) -> Option<&str> {
        self.no_sums.as_deref()
    }
}

fn slowest_ttft(steps: &[StepMetrics]) -> Option<f64> {
    steps.iter().filter_map(|step| step.times.ttft).map(Millis::get).max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, costs, open, sealed, some_sums};
    use super::*;

    /// A board whose feed has answered.
    fn board() -> Board {
        let mut board = Board::new(some_sums(), NOW);
        board.take(News::Connected { goes_on: false }, NOW);
        board
    }

    fn take(board: &mut Board, news: impl IntoIterator<Item = News>) {
        for news in news {
            board.take(news, NOW);
        }
    }

    fn open_ids(board: &Board) -> Vec<String> {
        board.open().map(|row| format!("{}/{}", row.conversation_id, row.turn_id)).collect()
    }

    fn sealed_ids(board: &Board) -> Vec<String> {
        board.sealed().map(|row| format!("{}/{}", row.conversation_id, row.turn_id)).collect()
    }

    #[test]
    fn a_turn_is_open_until_it_is_sealed() {
        let mut board = board();
        take(&mut board, [open("c", "1", 10), open("d", "1", 20)]);
        assert_eq!(open_ids(&board), ["d/1", "c/1"]);
        board.take(open("c", "1", 30), NOW + 5000);
        assert_eq!(open_ids(&board), ["c/1", "d/1"], "the latest change first");
        let first = board.open().next().unwrap();
        assert_eq!((first.seen_at, first.usage.input_tokens.get()), (NOW, 30));
        take(&mut board, [sealed("c", "1", 1, NOW)]);
        assert_eq!((open_ids(&board), sealed_ids(&board)), (vec!["d/1".to_owned()], vec!["c/1".to_owned()]));
        take(&mut board, [open("c", "1", 40)]);
        assert_eq!(open_ids(&board), ["d/1"], "a line that was late");
    }

    #[test]
    fn the_turns_of_an_erased_conversation_go_and_what_was_spent_stays() {
        let mut board = board();
        take(&mut board, [open("c", "2", 1), open("d", "2", 1), sealed("c", "1", 1, NOW), sealed("d", "1", 1, NOW)]);
        take(&mut board, [News::Erased(ConversationId::new("c").unwrap())]);
        assert_eq!((open_ids(&board), sealed_ids(&board)), (vec!["d/2".to_owned()], vec!["d/1".to_owned()]));
        assert_eq!(board.minutes().latest(1, NOW)[0].as_ref().unwrap().turns, 2);
    }

    #[test]
    fn another_history_begins_with_nothing() {
        let mut board = board();
        take(&mut board, [open("c", "2", 1), sealed("c", "1", 1, NOW), News::Reset]);
        assert_eq!((board.open().len(), board.sealed().len()), (0, 0));
        assert_eq!(board.minutes().latest(1, NOW)[0].as_ref().unwrap().turns, 0);
        take(&mut board, [costs("c", 1, 5)]);
        assert_eq!(board.minutes().latest(1, NOW)[0].as_ref().unwrap().cost.usd, None);
    }

    #[test]
    fn a_cost_is_unknown_until_it_comes() {
        let mut board = board();
        take(&mut board, [sealed("c", "1", 1, NOW), sealed("c", "2", 2, NOW)]);
        let minute = |board: &Board| board.minutes().latest(1, NOW)[0].clone().unwrap();
        assert_eq!((minute(&board).cost.usd, minute(&board).uncosted), (None, 2));
        take(&mut board, [costs("c", 1, 5), costs("c", 1, 5), costs("other", 1, 9)]);
        assert_eq!((minute(&board).cost.usd.unwrap().get(), minute(&board).uncosted), (5, 1), "once, and no other's");
        let known: Vec<_> = board.sealed().map(|row| row.cost.is_some()).collect();
        assert_eq!(known, [false, true]);
    }

    #[test]
    fn a_lost_connection_is_lost_since_it_first_failed() {
        let mut board = Board::new(some_sums(), NOW);
        assert_eq!(*board.link(), Link::Connecting);
        assert_eq!(board.minutes().latest(1, NOW)[0], None, "no turn is followed yet");
        board.take(News::Connected { goes_on: false }, NOW);
        board.take(News::Lost("first".into()), NOW + 1);
        board.take(News::Lost("second".into()), NOW + 2);
        assert_eq!(*board.link(), Link::Lost { since: NOW + 1, why: "second".into() });
        assert_eq!(board.minutes().latest(1, NOW + MINUTE_MS)[0], None);
        board.take(News::Connected { goes_on: true }, NOW + MINUTE_MS);
        assert_eq!(*board.link(), Link::Live);
        assert!(board.minutes().latest(2, NOW + MINUTE_MS).iter().all(Option::is_some));
        board.take(News::Connected { goes_on: false }, NOW + MINUTE_MS);
        assert_eq!(board.minutes().latest(2, NOW + MINUTE_MS)[0], None, "the turns before were missed");
    }

    #[test]
    fn a_new_connection_begins_with_no_rows_and_keeps_the_minutes() {
        let mut board = board();
        take(&mut board, [open("c", "2", 1), sealed("c", "1", 1, NOW), News::Lost("gone".into())]);
        assert_eq!((board.open().len(), board.sealed().len()), (1, 1));
        take(&mut board, [News::Connected { goes_on: true }]);
        assert_eq!((board.open().len(), board.sealed().len()), (0, 0), "one of them may have been erased");
        assert_eq!(board.minutes().latest(1, NOW)[0].as_ref().unwrap().turns, 1);
    }

    #[test]
    fn old_sums_stay_and_are_said_to_be_old() {
        let mut board = board();
        take(&mut board, [News::NoSums("503".into())]);
        assert_eq!((board.no_sums(), board.sums().asked_at), (Some("503"), NOW));
        take(&mut board, [News::Sums(Box::new(Sums { asked_at: NOW + 1, ..some_sums() }))]);
        assert_eq!((board.no_sums(), board.sums().asked_at), (None, NOW + 1));
    }

    #[test]
    fn everything_that_is_held_is_bounded() {
        let mut board = board();
        for n in 0..MAX_OPEN + 5 {
            board.take(open("c", &format!("t{n}"), 1), NOW);
        }
        assert_eq!(board.open().len(), MAX_OPEN);
        assert_eq!(open_ids(&board).last().unwrap(), "c/t5", "the turn that changed first is left out");
        for n in 1..=MAX_UNCOSTED as u64 + 5 {
            board.take(sealed("d", &format!("t{n}"), n, NOW), NOW);
        }
        assert_eq!((board.sealed().len(), board.uncosted.len()), (MAX_SEALED, MAX_UNCOSTED));
        assert_eq!(board.minutes().latest(1, NOW)[0].as_ref().unwrap().uncosted, MAX_UNCOSTED as u64 + 5);
        let later = NOW + 2 * WINDOW * MINUTE_MS;
        board.take(sealed("d", "later", 1_000_000, later), later);
        assert_eq!(board.uncosted.len(), 1, "costs that no minute waits for any more");
    }

    #[test]
    fn the_slowest_first_token_of_a_turn_is_that_of_its_steps() {
        let mut board = board();
        take(&mut board, [sealed("c", "1", 1, NOW)]);
        assert_eq!(board.sealed().next().unwrap().slowest_ttft, Some(420.0));
        assert_eq!(slowest_ttft(&[]), None);
    }
}
