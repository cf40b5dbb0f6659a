//! `GET /conversations/{id}/metrics`. Compared with a handler that answers the same bytes, which are prepared in
//! advance.

use std::path::Path;

use actix_web::http::header::{CACHE_CONTROL, ContentType, ETAG, IF_NONE_MATCH};
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse};

use crate::client::{ask, body, drive, get, header};
use crate::load::load;
use crate::report::{Report, Round, Row};
use crate::server::Serving;
use crate::work::conversation_id;

const CONNECTIONS: usize = 16;
/// The number of conversations. The requests go to one after the other.
const CONVERSATIONS: u64 = 20;
const OF_KNOWN: usize = 20_000;

pub(crate) fn run(report: &mut Report) {
    for (turns, count, goal) in [(10, 20_000, "0.7"), (100, 10_000, "0.6"), (1000, 1000, "0.6")] {
        let whole = Row::new(format!("read: metrics of {turns} turns"), "an actix handler with the bytes ready", goal);
        let known = Row::new(format!("read if none match: metrics of {turns} turns"), "an actix handler, 304", "0.9");
        if !report.wants(&whole.name) && !report.wants(&known.name) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        load(directory.path(), CONVERSATIONS, CONVERSATIONS * turns);
        let pair = Pair::start(directory.path());
        report.compare(&whole, || pair.ours.read(count), || pair.rival.read(count));
        report.compare(&known, || pair.ours.read_known(OF_KNOWN), || pair.rival.read_known(OF_KNOWN));
        pair.ours.server.stop();
        pair.rival.server.stop();
    }
}

/// Our server, and the rival, which answers with the same bytes.
struct Pair {
    ours: Reader,
    rival: Reader,
}

/// A server, and the requests to it.
struct Reader {
    server: Serving,
    whole: Vec<Vec<u8>>,
    known: Vec<Vec<u8>>,
}

impl Pair {
    fn start(directory: &Path) -> Self {
        let ours = Serving::ours(directory);
        let paths: Vec<_> =
            (0..CONVERSATIONS).map(|n| format!("/conversations/{}/metrics", conversation_id(n))).collect();
        let whole: Vec<_> = paths.iter().map(|path| get(path, "")).collect();
        let answers: Vec<_> = whole.iter().map(|request| ask(ours.address, request).unwrap()).collect();
        let known = paths.iter().zip(&answers);
        let known = known.map(|(path, answer)| get(path, &format!("if-none-match: {}\r\n", header(answer, "etag"))));
        let known: Vec<_> = known.collect();
        let rival = serve_ready(Bytes::from(body(&answers[0])), header(&answers[0], "etag").to_owned());
        Self {
            ours: Reader { server: ours, whole: whole.clone(), known: known.clone() },
            rival: Reader { server: rival, whole, known },
        }
    }
}

impl Reader {
    fn read(&self, count: usize) -> Round {
        drive(self.server.address, CONNECTIONS, self.whole.iter().cycle().take(count), 200).unwrap()
    }

    fn read_known(&self, count: usize) -> Round {
        drive(self.server.address, CONNECTIONS, self.known.iter().cycle().take(count), 304).unwrap()
    }
}

/// Answers every conversation with these bytes, and any request with an entity tag with 304.
fn serve_ready(ready: Bytes, tag: String) -> Serving {
    Serving::rival(move |config| {
        let (ready, tag) = (ready.clone(), tag.clone());
        let answer = move |request: HttpRequest| {
            let known = request.headers().contains_key(IF_NONE_MATCH);
            let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
            response.insert_header((ETAG, &*tag)).insert_header((CACHE_CONTROL, "no-cache"));
            let response =
                if known { response.finish() } else { response.insert_header(ContentType::json()).body(ready.clone()) };
            async { response }
        };
        config.route("/conversations/{id}/metrics", web::get().to(answer));
    })
}
