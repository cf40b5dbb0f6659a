//! The limit for everything durable: a plain file that is synced once a batch.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::report::Round;
use crate::work::TURN_BYTES;

pub(crate) const NAME: &str = "a plain file, one fdatasync a batch";

/// Appends batches of turns, `appenders` turns in each. Ends after `count` turns, or after `at_most`.
pub(crate) fn append(count: usize, appenders: usize, at_most: Duration) -> Round {
    let mut file = tempfile::tempfile().unwrap();
    let batch = vec![b'x'; TURN_BYTES * appenders];
    let mut times = Vec::new();
    let start = Instant::now();
    let mut done = 0;
    while done < count && start.elapsed() < at_most {
        let begin = Instant::now();
        append_batch(&mut file, &batch);
        times.push(begin.elapsed());
        done += appenders;
    }
    Round::timed(done, start.elapsed(), times)
}

fn append_batch(file: &mut File, batch: &[u8]) {
    file.write_all(batch).unwrap();
    file.sync_data().unwrap();
}
