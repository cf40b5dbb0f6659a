use std::fmt::Write as _;

use super::memory::Memory;
use crate::server::{Client, Server, until};

const CONVERSATIONS: usize = 16_000;
const CONVERSATIONS_A_POST: usize = 200;

/// The maximum memory of a short page above that of an idle server, whatever is stored. The cache of the database is
/// within it.
const MOST_MIB: u64 = 9;

/// Returns a stopped store with many conversations, whose ids and models have the maximum length.
fn store() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    // The smaller the journal, the less is left to be moved when the server stops.
    let server = Server::start_with(directory.path(), &[("STORE__REDB__JOURNAL_BYTES", "1048576")]);
    let mut client = server.client();
    for first in (0..CONVERSATIONS).step_by(CONVERSATIONS_A_POST) {
        let mut lines = String::new();
        for n in first..first + CONVERSATIONS_A_POST {
            writeln!(
                lines,
                r#"{{"type":"done","conversationId":"{n:0>256}","turnId":"t","reason":"stop","model":"{n:m>256}","usage":{{"inputTokens":{n},"outputTokens":1}}}}"#
            )
            .unwrap();
        }
        until("the turns are taken", || match client.post_events(&lines).status {
            200 => Some(()),
            503 => None,
            status => panic!("{status}"),
        });
    }
    server.signal("TERM");
    assert!(server.wait().0.success());
    directory
}

fn page(client: &mut Client, query: &str) -> (usize, usize, Option<String>) {
    let answer = client.get(&format!("/conversations?{query}"));
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    let page = answer.json();
    (page["conversations"].as_array().unwrap().len(), answer.body.len(), page["next"].as_str().map(str::to_owned))
}

/// All orders but that by latest activity read every conversation, and none may hold them all.
#[test]
fn a_list_that_reads_every_conversation_holds_no_more_than_a_page() {
    let store = store();
    for order in ["cost", "tokens", "turns"] {
        let server = Server::start_with(store.path(), &[("STORE__REDB__CACHE_BYTES", "1048576")]);
        let mut client = server.client();
        // The first question also starts the threads that read.
        assert_eq!(page(&mut client, "order=recent&limit=1").0, 1);
        let memory = Memory::of_idle(&server);
        assert_eq!(page(&mut client, &format!("order={order}&limit=5")).0, 5);
        let peak = memory.peak_mib();
        println!("5 of {CONVERSATIONS} conversations in the order {order}: at most {peak} MiB above idle");
        assert!(peak < MOST_MIB, "{order}: {peak} MiB");
    }

    // Control: all conversations together are longer.
    let server = Server::start(store.path());
    let mut client = server.client();
    let (mut conversations, mut bytes, mut after) = (0, 0, String::new());
    loop {
        let (listed, length, next) = page(&mut client, &format!("order=recent&limit=1000{after}"));
        (conversations, bytes) = (conversations + listed, bytes + length);
        let Some(next) = next else { break };
        after = format!("&after={next}");
    }
    assert_eq!(conversations, CONVERSATIONS);
    let mib = bytes as u64 / (1024 * 1024);
    println!("control: {mib} MiB of JSON");
    assert!(mib > MOST_MIB, "the conversations are too short for this test: {mib} MiB");
}
