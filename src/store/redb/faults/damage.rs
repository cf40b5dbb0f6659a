use super::disk::Disk;
use super::from_environment;
use crate::settings::StoreSettings;
use crate::simulate::random::Random;
use crate::store::oracle::question_of_1970;
use crate::store::redb::writer::backoff::Backoff;
use crate::store::{Commit, ConversationOrder, ConversationQuestion, RedbEngine, StagedTurn, StoreFile, TurnRange};
use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, RunningTime, TurnId};
use std::ops::ControlFlow;

/// The number of damaged files in a run of the test. `TURN_METRICS_TEST_DAMAGES` sets another number.
const DAMAGES: u64 = 150;

fn conversation(number: usize) -> ConversationId {
    ConversationId::new(format!("conversation-{number}")).unwrap()
}

fn turn(id: &str) -> OpenTurn {
    OpenTurn::new(TurnId::new(id).unwrap())
}

/// Asks the store every kind of question once. The answers may be errors, but there must be answers.
fn use_it(disk: &Disk) -> Result<(), String> {
    let settings = StoreSettings::without_cache();
    let (engine, mut writer) =
        RedbEngine::prepare(disk.location(), &settings, Backoff::default()).map_err(|error| error.to_string())?;
    for number in 0..3 {
        let conversation_id = conversation(number);
        let _ = engine.turns(&TurnRange::after(conversation_id.clone(), 0, 1000));
        let _ = engine.revision(&conversation_id);
        let state = engine.conversation_state(&conversation_id, &[]).unwrap_or_default();
        let commit = Commit {
            conversation_id,
            expected_version: state.version,
            staged: vec![StagedTurn { turn: turn("open"), last_event_at: RunningTime::new(1) }.into()],
            sealed: (0..20).map(|n| turn(&format!("t{n}")).seal(&Done::because("stop"), EpochMillis::new(1))).collect(),
            imported_from: None,
        };
        drop(engine.commit(commit));
        assert!(matches!(writer.run_once(), ControlFlow::Continue(())));
    }
    let _ = engine.sealed_turns(None, 1000);
    for order in [ConversationOrder::Recent, ConversationOrder::Tokens] {
        let _ = engine.conversations(&ConversationQuestion::first(order, 1000));
    }
    let _ = engine.report(&question_of_1970());
    let _ = engine.stale_turns(RunningTime::new(9).into(), None, 100);
    drop(engine);
    writer.run();
    Ok(())
}

#[test]
fn a_damaged_file_is_an_error_or_answers_and_never_a_hang() {
    let whole = Disk::default();
    use_it(&whole).unwrap();
    let files = [StoreFile::Main, StoreFile::Journal];
    let whole = files.map(|file| whole.bytes(file));
    let mut refused = 0;
    let first = from_environment("TURN_METRICS_TEST_SEED").unwrap_or(1);
    for seed in
        (first..).take(usize::try_from(from_environment("TURN_METRICS_TEST_DAMAGES").unwrap_or(DAMAGES)).unwrap())
    {
        let mut random = Random::new(seed);
        let mut images = whole.clone();
        let image = &mut images[random.below(files.len())];
        match random.below(4) {
            // The file is cut short.
            0 => image.truncate(random.below(image.len())),
            // A sector that was never written.
            1 => {
                let at = random.below(image.len() / 512) * 512;
                image[at..at + 512].fill(0);
            }
            // Some bits are flipped.
            _ => {
                for _ in 0..=random.below(20) {
                    let at = random.below(image.len());
                    image[at] ^= 1 << random.below(8);
                }
            }
        }
        let [main, journal] = images;
        if let Err(cause) = use_it(&Disk::of(main, journal)) {
            assert!(cause.contains("a storage of a test"), "the error does not name the damaged file: {cause}");
            refused += 1;
        }
    }
    assert!(refused > 0, "no damage was noticed, so the test damages bytes that nothing reads");
}
