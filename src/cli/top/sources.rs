//! The threads that ask a server: for its feed, for the costs of sealed turns, and for sums.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::Sender;

use super::news::{News, TurnCost};
use super::sse::Parser;
use super::sums::Sums;
use crate::cli::client::{Client, ClientError, TurnQuestion};
use crate::report::Zone;
use crate::turn::ConversationId;

/// The pause before the client connects again, unless the server asks for another one.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);
/// The shortest time between two questions for sums.
const SUMS_PAUSE: Duration = Duration::from_secs(1);
/// The longest time between them, even if no turn is sealed.
const SUMS_EVERY: Duration = Duration::from_secs(5);
/// The most turns whose costs are asked for in one request.
const COSTS_AT_ONCE: u64 = 1000;

/// A sealed turn whose cost is to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uncosted {
    pub(super) conversation_id: ConversationId,
    pub(super) ordinal: u64,
}

/// The view has ended, so nobody wants the news any more.
struct Unwanted;

/// Why a stream of the feed ended.
enum StreamEnd {
    /// The server ended it, as it does from time to time.
    Whole,
    Broken(String),
}

fn tell(inbox: &Sender<News>, news: News) -> Result<(), Unwanted> {
    inbox.blocking_send(news).map_err(|_| Unwanted)
}

/// Waits. The wait may end early, which does no harm.
pub(super) fn pause(time: Duration) {
    thread::park_timeout(time);
}

/// Follows the feed, from now on, until nobody wants the news. After a `pause`, a connection that is lost is made again,
/// and goes on where it was.
pub(super) fn follow_feed(client: &Client, inbox: &Sender<News>, pause: impl Fn(Duration)) {
    let mut last_id = String::new();
    loop {
        let (end, retry_after) = match client.feed(&last_id) {
            Ok(stream) => {
                let connected = News::Connected { goes_on: !last_id.is_empty() };
                let mut parser = Parser::after(&last_id);
                let Ok(end) = tell(inbox, connected).and_then(|()| read_stream(stream, &mut parser, inbox)) else {
                    return;
                };
                parser.last_id().clone_into(&mut last_id);
                (end, parser.retry())
            }
            Err(error) => (StreamEnd::Broken(error.to_string()), error.retry_after()),
        };
        if let StreamEnd::Broken(why) = end
            && tell(inbox, News::Lost(why)).is_err()
        {
            return;
        }
        pause(retry_after.unwrap_or(RETRY_AFTER).clamp(RETRY_AFTER, MAX_RETRY_AFTER));
    }
}

fn read_stream(mut stream: impl Read, parser: &mut Parser, inbox: &Sender<News>) -> Result<StreamEnd, Unwanted> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let events = match stream.read(&mut buffer) {
            Ok(0) => return Ok(StreamEnd::Whole),
            Ok(length) => parser.push(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(StreamEnd::Broken(format!("the feed broke off: {error}"))),
        };
        let events = match events {
            Ok(events) => events,
            Err(error) => return Ok(StreamEnd::Broken(error.to_string())),
        };
        let mut broken = None;
        // The parser has passed all of these events, so the next stream begins behind them.
        for event in events {
            match News::read(&event) {
                Ok(Some(news)) => tell(inbox, news)?,
                Ok(None) => {}
                Err(error) => broken = Some(format!("the feed is not understood: {error}")),
            }
        }
        if let Some(why) = broken {
            return Ok(StreamEnd::Broken(why));
        }
    }
}

/// Asks for the costs of turns, those of one conversation together. A failure leaves costs unknown.
pub(super) fn ask_costs(client: &Client, uncosted: &Receiver<Uncosted>, inbox: &Sender<News>) {
    while let Ok(first) = uncosted.recv() {
        let mut asked = BTreeMap::<ConversationId, (u64, u64)>::new();
        for Uncosted { conversation_id, ordinal } in [first].into_iter().chain(uncosted.try_iter()) {
            let range = asked.entry(conversation_id).or_insert((ordinal, ordinal));
            *range = (range.0.min(ordinal), range.1.max(ordinal));
        }
        for (conversation_id, (first, last)) in asked {
            let costs = costs(client, &conversation_id, first, last).unwrap_or_default();
            if !costs.is_empty() && tell(inbox, News::Costs(costs)).is_err() {
                return;
            }
        }
    }
}

/// Returns the costs of the turns of a conversation from `first` to `last`. A page may be short, and erased turns are
/// in none.
fn costs(client: &Client, id: &ConversationId, first: u64, last: u64) -> Result<Vec<TurnCost>, ClientError> {
    let mut costs = Vec::new();
    let mut after = first.saturating_sub(1);
    while after < last {
        let limit = usize::try_from((last - after).min(COSTS_AT_ONCE)).unwrap_or(usize::MAX);
        let page = client.turns(id, TurnQuestion { after, limit, ..TurnQuestion::default() })?;
        let Some(latest) = page.turns.last().map(|listed| listed.turn.ordinal.get()) else { break };
        costs.extend(page.turns.into_iter().filter_map(|listed| {
            let (conversation_id, ordinal) = (id.clone(), listed.turn.ordinal.get());
            Some(TurnCost { conversation_id, ordinal, cost: listed.cost? })
        }));
        after = latest;
    }
    Ok(costs)
}

/// Asks for sums from time to time, and soon after turns were sealed.
pub(super) fn ask_sums(client: &Client, zone: Option<&Zone>, sealed: &Receiver<()>, inbox: &Sender<News>) {
    loop {
        pause(SUMS_PAUSE);
        if let Err(RecvTimeoutError::Disconnected) = sealed.recv_timeout(SUMS_EVERY.saturating_sub(SUMS_PAUSE)) {
            return;
        }
        let news = match Sums::ask(client, zone) {
            Ok(sums) => News::Sums(Box::new(sums)),
            Err(error) => News::NoSums(error.to_string()),
        };
        if tell(inbox, news).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::mpsc::sync_channel;

    use tokio::sync::mpsc::channel;

    use super::*;
    use crate::cli::testing::{Script, answer};

    /// An answer of the feed. If it is not whole, the connection breaks at its end.
    #[expect(clippy::unnecessary_wraps, reason = "it is used in a list of answers")]
    fn stream(text: &str, is_whole: bool) -> Option<String> {
        let end = if is_whole { "0\r\n\r\n" } else { "" };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        Some(format!("{head}{:x}\r\n{text}\r\n{end}", text.len()))
    }

    #[test]
    fn a_lost_feed_is_told_and_goes_on_after_the_last_event() {
        let erased = |id: &str| format!("event: erased\ndata: {{\"conversationId\":\"{id}\"}}\n\n");
        let script = Script::play(vec![
            stream(&format!("retry: 1500\nid: p-1\n\n{}event: later\ndata: ?\n\n", erased("a")), false),
            stream(&format!("retry: 1\nid: p-2\n{}: half an event\nid: p-3\n", erased("b")), true),
            Some(answer(503, r#"{"error":"too many readers"}"#).unwrap().replacen("\r\n", "\r\nRetry-After: 2\r\n", 1)),
            stream("event: erased\ndata: {}\n\n", true),
        ]);
        let client = Client::new(script.url());
        let (inbox, mut news) = channel(100);
        let thread = thread::spawn(move || {
            let pauses = RefCell::new(Vec::new());
            follow_feed(&client, &inbox, |time| pauses.borrow_mut().push(time.as_millis()));
            pauses.into_inner()
        });
        let mut told = Vec::new();
        for _ in 0..8 {
            told.push(match news.blocking_recv().unwrap() {
                News::Connected { goes_on } => format!("connected {goes_on}"),
                News::Erased(id) => id.to_string(),
                News::Lost(why) => why,
                other => panic!("{other:?}"),
            });
        }
        drop(news);
        let requests = script.requests();
        let pauses = thread.join().unwrap();
        assert_eq!(pauses[..3], [1500, 1000, 2000], "as the server asks, within limits");
        assert_eq!(told[..2], ["connected false", "a"]);
        assert!(told[2].starts_with("the feed broke off: "), "{told:?}");
        assert_eq!(told[3..5], ["connected true", "b"], "the end of a whole stream is nothing to tell");
        assert!(told[5].ends_with("answered 503: too many readers"), "{told:?}");
        assert_eq!(told[6], "connected true");
        assert!(told[7].starts_with("the feed is not understood: missing field"), "{told:?}");
        let last_ids: Vec<_> = requests
            .iter()
            .map(|request| {
                assert!(request.starts_with("GET /feed HTTP/1.1\r\n"), "{request}");
                request.lines().find_map(|line| line.strip_prefix("last-event-id: "))
            })
            .collect();
        assert_eq!(last_ids, [None, Some("p-1"), Some("p-2"), Some("p-2")]);
    }

    #[test]
    fn costs_are_asked_for_together_page_by_page() {
        let turn = |ordinal: u64, cost: &str| {
            format!(
                r#"{{"ordinal":{ordinal},"sealedAt":1,"reason":"stop","metrics":{{"turnId":"t{ordinal}","usage":{{"inputTokens":1,"outputTokens":1}},"steps":[]}}{cost}}}"#
            )
        };
        let cost = r#","cost":{"usd":"0.000000000007","unpricedTokens":0,"unpricedModels":[]}"#;
        let page = |turns: &str| answer(200, &format!(r#"{{"turns":[{turns}],"latestOrdinal":9}}"#));
        let script = Script::play(vec![
            answer(404, r#"{"error":"erased"}"#),
            page(&format!("{},{}", turn(3, cost), turn(4, ""))),
            page(&turn(6, cost)),
        ]);
        let (send, uncosted) = sync_channel(10);
        for (id, ordinal) in [("b", 6), ("b", 3), ("a", 1), ("b", 4)] {
            send.send(Uncosted { conversation_id: ConversationId::new(id).unwrap(), ordinal }).unwrap();
        }
        drop(send);
        let (inbox, mut news) = channel(10);
        ask_costs(&Client::new(script.url()), &uncosted, &inbox);
        let Some(News::Costs(costs)) = news.blocking_recv() else { panic!("no costs") };
        let told: Vec<_> = costs.iter().map(|told| (told.ordinal, told.cost.usd.unwrap().get())).collect();
        assert_eq!(told, [(3, 7), (6, 7)]);
        let lines: Vec<_> =
            script.requests().iter().map(|request| request.lines().next().unwrap().to_owned()).collect();
        assert_eq!(lines[0], "GET /conversations/a/turns?after=0&limit=1&cost=true HTTP/1.1");
        assert_eq!(lines[1], "GET /conversations/b/turns?after=2&limit=4&cost=true HTTP/1.1");
        assert_eq!(lines[2], "GET /conversations/b/turns?after=4&limit=2&cost=true HTTP/1.1");
    }
}
