//! Pages that the disk can never read, such as those of a bad sector. After such an error, nothing of the file can be read
//! until the store has opened it again.

use std::ops::ControlFlow;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::disk::Disk;
use super::flips::{Noticed, Sample, sample, send_again};
use super::from_environment;
use crate::settings::StoreSettings;
use crate::store::redb::unwind;
use crate::store::redb::writer::backoff::Backoff;
use crate::store::{CommitError, RedbEngine, StoreFile};

const PAGE: usize = 4096;

/// One in so many pages is tried. `TURN_METRICS_TEST_PAGE_STRIDE` sets another number.
const STRIDE: u64 = 5;

/// More errors than a pass needs to find the end of the rows that cannot be read.
const MANY_ERRORS: u64 = 300;

/// Does `open` while the disk can read everything: in a debug build, the database reads all pages when it is opened.
fn readable<T>(disk: &Disk, open: impl FnOnce() -> T) -> T {
    let unreadable = disk.make_readable();
    let opened = open();
    if let Some((file, bytes)) = unreadable {
        disk.make_unreadable(file, bytes);
    }
    opened
}

/// What a scrub of a store with a page that cannot be read has done.
struct Scrubbed {
    has_met: bool,
    rows: u64,
    /// Whether the findings are still known when the store is opened again.
    is_stored: bool,
}

/// Scrubs a store with a page that cannot be read, until a pass has ended.
fn scrub(sample: &Sample, page: usize) -> Scrubbed {
    let [main, journal] = sample.files.clone();
    let disk = Disk::of(main, journal);
    let settings = StoreSettings { queue_commits: 1, ..StoreSettings::without_cache() };
    let open = || RedbEngine::prepare(disk.location(), &settings, Backoff::default()).unwrap();
    let (engine, mut writer) = open();
    disk.make_unreadable(StoreFile::Main, page * PAGE..(page + 1) * PAGE);
    let report = loop {
        if let Ok(report) = engine.scrub() {
            break report;
        }
        assert!(disk.struck() < MANY_ERRORS, "page {page}: the pass does not end");
        let asked = pin!(engine.check_write()).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(
            asked,
            Poll::Ready(Err(CommitError::Overloaded)),
            "page {page}: the scrub has not asked for a check"
        );
        assert!(matches!(writer.run_once(), ControlFlow::Continue(())));
        readable(&disk, || writer.open_again());
    };
    assert_eq!(report.scrub_passes, 1);
    let has_met = disk.struck() > 0;
    assert_eq!(report.findings > 0, has_met, "page {page}: {report:?}");
    let mut noticed = Noticed::default();
    send_again(&engine, &mut writer, &sample.models, &mut noticed);
    assert!(noticed.wrong.is_empty(), "page {page}: {noticed:?}");
    let _ = unwind::caught(|| drop((engine, writer)));
    let (engine, _writer) = readable(&disk, open);
    Scrubbed { has_met, rows: report.scrubbed_rows, is_stored: engine.damage().findings == report.findings }
}

#[test]
fn a_page_that_cannot_be_read_is_a_finding_and_the_scrub_goes_on_behind_it() {
    let sample = sample();
    let stride = from_environment("TURN_METRICS_TEST_PAGE_STRIDE").unwrap_or(STRIDE);
    let all = scrub(&sample, usize::MAX / PAGE - 1).rows;
    let (mut met, mut stored, mut beyond) = (0, 0, 0);
    for page in (1..sample.files[0].len() / PAGE).step_by(usize::try_from(stride).unwrap()) {
        let Scrubbed { has_met, rows, is_stored } = scrub(&sample, page);
        met += usize::from(has_met);
        stored += usize::from(has_met && is_stored);
        beyond += usize::from(has_met && rows > all / 2);
    }
    println!("{met} pages were met, the findings of {stored} are stored, and {beyond} passes have read most rows");
    // Nothing can be stored if the page is one that each write needs, and an inner page hides most rows.
    assert!(met > 5 && stored * 2 > met && beyond * 4 > met, "{met} {stored} {beyond}");
}
