//! Attacks by clients: how much memory each can make the process hold, and whether other clients are still served.
//!
//! Each attack has a control: the same attack without the limit that stops it.
//!
//! - `memory`: the memory of the process.
//! - `others`: a harmless client, and how the server serves it during an attack.
//! - `table`: all attacks that can last, beside a harmless client, with the memory and the waits.
//! - `reads`: long answers that nobody reads.
//! - `lists`: lists of very many conversations.
//! - `bodies`: bodies that stall, and short bodies that take much memory.
//! - `backups`: backups that nobody reads.
//! - `connections`: connections that nobody uses, and limits of the system.
//! - `pages`: what a web page could send.
//! - `text`: texts and numbers that would deceive a reader of a terminal or a log.
//! - `private_files`: who may read the files that the program creates.

mod backups;
mod bodies;
#[cfg(target_os = "linux")]
mod connections;
#[cfg(target_os = "linux")]
mod lists;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod others;
mod pages;
#[cfg(unix)]
mod private_files;
#[cfg(target_os = "linux")]
mod reads;
#[cfg(target_os = "linux")]
mod table;
mod text;

use std::fmt::Write as _;

use crate::server::Client;

/// Returns about the largest turn that the default limits allow: its ids and texts have the maximum length, and it has
/// as many such steps as the limit for a turn's bytes allows.
fn longest_turn(conversation: &str, turn: &str) -> String {
    let (model, provider) = ("m".repeat(250), "p".repeat(256));
    let mut lines = String::new();
    for step in 0..3200 {
        writeln!(
            lines,
            r#"{{"type":"step-complete","conversationId":"{conversation}","turnId":"{turn}","stepId":"{step:0>256}","model":"{model}{step:0>6}","provider":"{provider}"}}"#
        )
        .unwrap();
    }
    lines + &done(conversation, turn)
}

fn done(conversation: &str, turn: &str) -> String {
    format!("{{\"type\":\"done\",\"conversationId\":\"{conversation}\",\"turnId\":\"{turn}\",\"reason\":\"stop\"}}\n")
}

/// Asserts that a harmless client can post and read.
#[track_caller]
fn assert_served(client: &mut Client, turn: &str) {
    let posted = client.post_events(&done("other", turn));
    assert_eq!(posted.status, 200, "{posted:?}");
    let turns = client.get("/conversations/other/turns?limit=1000");
    assert!(turns.status == 200 && turns.body.contains(turn), "{turns:?}");
    assert_eq!(client.get("/conversations/other/metrics").status, 200);
}
