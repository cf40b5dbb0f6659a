//! The sealed turns of all conversations in the order in which they became durable, over `GET /turns`, `GET /export`
//! and `turn-metrics export`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::thread;

use serde_json::Value;

use crate::server::{Client, Server, turn_metrics, until};

const CONVERSATIONS: u64 = 5;

/// The journal is so small that some turns are in the tables and others are not yet.
fn start(directory: &Path) -> Server {
    Server::start_with(directory, &[("STORE__REDB__JOURNAL_BYTES", "65536")])
}

fn done(turn: u64) -> String {
    let conversation = turn % CONVERSATIONS;
    format!(
        "{{\"type\":\"usage\",\"conversationId\":\"c{conversation}\",\"turnId\":\"t{turn}\",\"stepId\":\"s\",\"usage\":{{\"inputTokens\":{turn},\"outputTokens\":1}}}}\n\
         {{\"type\":\"done\",\"conversationId\":\"c{conversation}\",\"turnId\":\"t{turn}\",\"reason\":\"stop\"}}\n"
    )
}

/// Posts turns again and again until they are acknowledged. Fails if the connection breaks.
fn try_post(client: &mut Client, turns: std::ops::Range<u64>) -> std::io::Result<()> {
    let body: String = turns.map(done).collect();
    until("the turns are taken", || match client.try_post_events(&body) {
        Err(error) => Some(Err(error)),
        Ok(answer) if answer.status == 200 => Some(Ok(())),
        Ok(answer) => {
            assert_eq!(answer.status, 503, "{answer:?}");
            None
        }
    })
}

/// A reader that asks for page after page and continues where it has stopped.
#[derive(Default)]
struct Reader {
    seen: Vec<Value>,
    next: Option<String>,
}

impl Reader {
    /// Reads a page. Returns the number of its turns, or `None` if the connection broke.
    fn try_read(&mut self, client: &mut Client, limit: usize) -> Option<usize> {
        let after = self.next.as_ref().map_or_else(String::new, |next| format!("&after={next}"));
        let answer = client.send("GET", &format!("/turns?limit={limit}{after}"), &[], b"").ok()?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json();
        let turns = page["turns"].as_array().unwrap();
        self.seen.extend(turns.iter().cloned());
        self.next = Some(page["next"].as_str().unwrap().to_owned());
        Some(turns.len())
    }

    fn read_all(&mut self, client: &mut Client, limit: usize) {
        while self.try_read(client, limit).unwrap() > 0 {}
    }

    /// Asserts that these turns were seen once each, in the order of their positions, and that these lead to the turns
    /// that the conversations have.
    fn assert_complete(&self, client: &mut Client, turns: u64) {
        let positions: Vec<_> = self.seen.iter().map(|turn| turn["position"].as_str().unwrap()).collect();
        assert!(positions.is_sorted_by(|one, other| one.as_bytes() < other.as_bytes()), "{positions:?}");
        let mut by_conversation = BTreeMap::<&str, Vec<Value>>::new();
        for turn in &self.seen {
            let mut envelope = turn.clone();
            envelope.as_object_mut().unwrap().remove("position");
            envelope.as_object_mut().unwrap().remove("conversationId");
            by_conversation.entry(turn["conversationId"].as_str().unwrap()).or_default().push(envelope);
        }
        for (id, seen) in by_conversation {
            let page = client.get(&format!("/conversations/{id}/turns?limit=1000")).json();
            assert_eq!(seen, *page["turns"].as_array().unwrap(), "{id}");
        }
        assert_eq!(self.seen.len() as u64, turns);
    }
}

#[test]
fn a_reader_gets_each_turn_once_beside_writers_and_across_kills() {
    const TURNS: u64 = 3000;
    const TURNS_A_POST: u64 = 20;
    let directory = tempfile::tempdir().unwrap();
    let mut reader = Reader::default();
    let mut posted = 0;
    for run in 1..=4 {
        let server = start(directory.path());
        let (mut writer, mut client) = (server.client(), server.client());
        let until_turn = TURNS * run / 4;
        posted = thread::scope(|scope| {
            let writing = scope.spawn(move || {
                let mut done = posted;
                while done < TURNS && try_post(&mut writer, done..done + TURNS_A_POST).is_ok() {
                    done += TURNS_A_POST;
                }
                done
            });
            // The reader stops in the middle of a page's worth, while the writer goes on.
            until("the reader has seen enough", || {
                reader.try_read(&mut client, 7 * usize::try_from(run).unwrap()).unwrap();
                (reader.seen.len() as u64 >= until_turn).then_some(())
            });
            server.kill();
            writing.join().unwrap()
        });
    }
    let server = start(directory.path());
    let mut client = server.client();
    // The last post may be stored in part. Its turns are duplicates then.
    (posted..TURNS).step_by(20).for_each(|from| try_post(&mut client, from..from + TURNS_A_POST).unwrap());
    reader.read_all(&mut client, 1000);
    reader.assert_complete(&mut client, TURNS);
    let mut anew = Reader::default();
    anew.read_all(&mut client, 999);
    assert_eq!((anew.seen, anew.next), (reader.seen, reader.next), "the order is another one when it is read again");
}

#[test]
fn a_position_of_another_history_is_gone() {
    let (directory, restored) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = start(directory.path());
    let mut client = server.client();
    try_post(&mut client, 0..10).unwrap();
    let mut reader = Reader::default();
    reader.read_all(&mut client, 4);
    let copy = restored.path().join("turn-metrics.redb");
    let backup = turn_metrics().args(["backup", "--server", &server.url()]).arg(&copy).output().unwrap();
    assert!(backup.status.success(), "{backup:?}");

    let copy = start(restored.path());
    let next = reader.next.unwrap();
    for resource in ["turns", "export"] {
        let answer = copy.client().get(&format!("/{resource}?after={next}"));
        assert_eq!(answer.status, 410, "{answer:?}");
        assert!(answer.error().contains("read from the beginning"), "{answer:?}");
    }
    let refused = export(&copy, &["--after", &next]);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0), "{refused:?}");
    let mut anew = Reader::default();
    anew.read_all(&mut copy.client(), 100);
    anew.assert_complete(&mut copy.client(), 10);
}

fn export(server: &Server, args: &[&str]) -> Output {
    turn_metrics().args(["export", "--server", &server.url()]).args(args).output().unwrap()
}

#[test]
fn an_export_has_every_turn_and_a_later_one_goes_on_from_it() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path());
    let mut client = server.client();
    try_post(&mut client, 0..500).unwrap();
    let mut reader = Reader::default();
    reader.read_all(&mut client, 1000);
    let all = client.get("/export");
    assert_eq!((all.status, all.header("content-type")), (200, Some("application/x-ndjson")));
    let mut lines: Vec<Value> = all.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let end = lines.pop().unwrap()["end"].as_str().unwrap().to_owned();
    assert_eq!((&lines, Some(&end)), (&reader.seen, reader.next.as_ref()));

    let printed = export(&server, &[]);
    assert!(printed.status.success(), "{printed:?}");
    assert!(printed.stdout == all.body.as_bytes());
    assert_eq!(String::from_utf8_lossy(&printed.stderr), format!("500 turns, up to the position {end}\n"));

    let file = directory.path().join("turns.ndjson");
    let name = file.to_str().unwrap();
    assert!(export(&server, &[name]).status.success());
    assert!(std::fs::read_to_string(&file).unwrap() == all.body);
    try_post(&mut client, 500..620).unwrap();
    let refused = export(&server, &[name, "--after", &end]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("exists; give --force to replace it"), "{refused:?}");
    assert!(std::fs::read_to_string(&file).unwrap() == all.body, "a refused export changed the file");
    assert!(export(&server, &[name, "--force", "--after", &end]).status.success());
    let later = std::fs::read_to_string(&file).unwrap();
    assert_eq!(later.lines().count(), 121);
    let both = all.body.lines().take(500).chain(later.lines()).map(|line| line.to_owned() + "\n");
    assert!(both.collect::<String>() == client.get("/export").body);

    let wrong = export(&server, &["--after", "7"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[test]
fn an_export_begins_with_the_sums_of_erased_turns_and_one_that_goes_on_has_none() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path());
    let mut client = server.client();
    try_post(&mut client, 0..500).unwrap();
    for conversation in ["c1", "c2"] {
        let path = format!("/conversations/{conversation}");
        assert_eq!(client.send("DELETE", &path, &[], b"").unwrap().status, 204);
    }
    let all = client.get("/export").body;
    assert!(!all.contains("\"c1\""), "an export names an erased conversation");
    let lines: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (sums, turns): (Vec<&Value>, Vec<&Value>) =
        lines[..lines.len() - 1].iter().partition(|line| line.get("erased").is_some());
    assert!(sums.iter().eq(lines.iter().take(sums.len()).collect::<Vec<_>>().iter()), "sums come first");
    assert_eq!(turns.len(), 300);
    assert_eq!(sums.iter().map(|line| line["erased"]["turns"].as_u64().unwrap()).sum::<u64>(), 200);
    let position = turns[0]["position"].as_str().unwrap();
    let later = client.get(&format!("/export?after={position}")).body;
    assert_eq!(later.lines().count(), 300);
    assert!(!later.contains("erased"));

    let printed = export(&server, &[]);
    assert!(printed.stdout == all.as_bytes(), "sums are the same until more turns are erased");
    let note = String::from_utf8_lossy(&printed.stderr).into_owned();
    let expected = format!("300 turns and {} sums of erased turns, up to the position ", sums.len());
    assert!(note.starts_with(&expected), "{note}");
}
