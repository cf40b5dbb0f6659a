//! `POST /events` while a thousand clients read the feed of a conversation each. Compared with the same posts without
//! readers.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use futures_util::future::try_join_all;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use turn_metrics::settings::HttpSettings;

use crate::client::{drive, get, post_events};
use crate::report::{FEW_ROUNDS, Report, Round, Row, Unit, alternate};
use crate::server::Serving;
use crate::work::{Random, Turn, conversation_id};

const READERS: usize = 1000;
const TURNS: usize = 20_000;
const TURNS_A_REQUEST: usize = 10;
const CONNECTIONS: usize = 16;

/// The bytes that occur once in the event of each sealed turn.
const SEALED: &[u8] = b"\nevent: turn-sealed\n";

pub(crate) fn run(report: &mut Report) {
    let name = format!("feed: turns posted while {READERS} clients read a conversation each");
    let late = format!("{name}: until all have the last turn");
    if !report.wants(&name) && !report.wants(&late) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let first = Cell::new(0);
    let round = |readers: usize| {
        first.set(first.get() + TURNS);
        post(directory.path(), first.get(), readers)
    };
    let mut millis = Vec::new();
    let with_readers = || {
        let (posted, late) = round(READERS);
        millis.push(late);
        posted
    };
    let pairs = alternate(FEW_ROUNDS, with_readers, || round(0).0);
    // The first round warms up.
    let millis = millis.split_off(millis.len() - pairs.len());
    report.add_rates(&Row::new(name, "the same without readers", "0.7"), &pairs);
    report.add_values(&Row::new(late, "", "1 s"), Unit::Milliseconds, &millis);
}

/// Posts the turns to a new server with this many readers. Returns the round, and after how many milliseconds from the
/// last answer on the readers had every turn.
fn post(directory: &Path, first: usize, readers: usize) -> (Round, f64) {
    let settings = HttpSettings { max_connections: 4 * READERS, max_feed_readers: READERS, ..HttpSettings::default() };
    let server = Serving::ours_with(directory, settings);
    let requests = requests(first);
    let (begun, done) = follow(server.address, readers);
    begun.recv().unwrap();
    let round = drive(server.address, CONNECTIONS, requests.iter(), 200).unwrap();
    let answered = Instant::now();
    let read = done.recv().unwrap();
    server.stop();
    (round, read.saturating_duration_since(answered).as_secs_f64() * 1e3)
}

fn requests(first: usize) -> Vec<Vec<u8>> {
    let mut random = Random(first as u64);
    let turns = (first..first + TURNS).map(|n| {
        let conversation = conversation_id((n % READERS) as u64);
        Turn::in_conversation(conversation, n as u64, &mut random).counting_lines()
    });
    let turns: Vec<_> = turns.collect();
    turns.chunks(TURNS_A_REQUEST).map(|some| post_events(&some.concat())).collect()
}

/// Reads the feed of each conversation on a thread of its own. The first channel says when all streams have begun, the
/// second one when all turns of a round have come.
fn follow(address: SocketAddr, readers: usize) -> (Receiver<()>, Receiver<Instant>) {
    let ((send_begun, begun), (send_done, done)) = (channel(), channel());
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(read(address, readers, &send_begun, &send_done)).unwrap();
    });
    (begun, done)
}

async fn read(address: SocketAddr, readers: usize, begun: &Sender<()>, done: &Sender<Instant>) -> std::io::Result<()> {
    let streams = try_join_all((0..readers as u64).map(|n| begin(address, n))).await?;
    begun.send(()).unwrap();
    let each = streams.into_iter().map(|mut stream| async move {
        let (mut bytes, mut turns) = (Vec::new(), 0);
        while turns < TURNS / READERS {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            turns += memmem::find_iter(&bytes, SEALED).count();
            bytes.drain(..bytes.len().saturating_sub(SEALED.len() - 1));
        }
        Ok::<_, std::io::Error>(())
    });
    try_join_all(each).await?;
    done.send(Instant::now()).unwrap();
    Ok(())
}

/// Connects, and waits until the stream has begun.
async fn begin(address: SocketAddr, n: u64) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&get(&format!("/feed?conversation={}", conversation_id(n)), "")).await?;
    let mut answer = Vec::new();
    while memmem::find(&answer, b"\nid: ").is_none() {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(stream)
}
