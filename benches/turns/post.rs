//! `POST /events` with one turn in each request. Compared with a handler that only reads the same body.

use std::path::Path;

use actix_web::HttpResponse;
use actix_web::web::{self, Bytes};

use crate::client::{drive, post_events};
use crate::report::{Report, Round, Row};
use crate::server::Serving;
use crate::work::turns;

const CONNECTIONS: usize = 64;
const TURNS: usize = 10_000;

pub(crate) fn run(report: &mut Report) {
    let name = format!("post: one turn a request, {CONNECTIONS} connections");
    if !report.wants(&name) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let rival = Serving::rival(|config| {
        config.route("/events", web::post().to(|_: Bytes| async { HttpResponse::Ok().finish() }));
    });
    let mut first = 0;
    let ours = || {
        first += TURNS as u64;
        ours(directory.path(), first)
    };
    let limit = || {
        let requests = requests(0);
        drive(rival.address, CONNECTIONS, requests.iter(), 200).unwrap()
    };
    report.compare(&Row::new(name, "an actix handler that reads the same body", "0.5"), ours, limit);
    rival.stop();
}

/// Stops the server after each round, so that it does no work during the rival's round.
fn ours(directory: &Path, first: u64) -> Round {
    let requests = requests(first);
    let server = Serving::ours(directory);
    let round = drive(server.address, CONNECTIONS, requests.iter(), 200).unwrap();
    server.stop();
    round
}

fn requests(first: u64) -> Vec<Vec<u8>> {
    turns(first, TURNS).iter().map(|turn| post_events(&turn.lines)).collect()
}
