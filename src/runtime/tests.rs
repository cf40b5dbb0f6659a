//! Tests of whole systems: all actors and a real store, in memory or in a file.

use actix::Recipient;

use super::*;
use crate::actors::{
    Fact, FindRevision, Import, ImportedTurn, InspectConversation, ListConversations, ListSealed, ListTurns, Observe,
    ObserveError, StoreReport, WorkCounts,
};
use crate::store::{ConversationOrder, ConversationQuestion, FaultKind, ListSealedError, TurnRange, Version};
use crate::testing::{Probe, TestClock, TurnScript};
use crate::turn::{ConversationId, Done, EpochMillis, OpenTurn, Ordinal, StoredTurn, TurnId};

async fn start() -> Runtime {
    Runtime::builder().clock(Arc::new(TestClock::at(1000))).start().await.unwrap()
}

fn id(id: &str) -> ConversationId {
    ConversationId::new(id).unwrap()
}

async fn observe(runtime: &Runtime, script: &TurnScript) -> Result<crate::actors::Receipt, ObserveError> {
    runtime.handles().intake.observe.send(script.observe()).await.unwrap()
}

async fn turns(runtime: &Runtime, conversation: &str) -> Vec<StoredTurn> {
    let range = TurnRange::after(id(conversation), 0, 1000);
    runtime.handles().reads.list_turns.send(ListTurns(range)).await.unwrap().unwrap()
}

#[actix_rt::test]
async fn two_systems_in_one_process_share_nothing() {
    let (one, other) = (start().await, start().await);
    let mut told_of_other = other.subscribe();
    observe(&one, &TurnScript::new("c", "a").done("stop")).await.unwrap();
    observe(&other, &TurnScript::new("c", "b").done("stop")).await.unwrap();
    for (runtime, turn_id) in [(&one, "a"), (&other, "b")] {
        let turns = turns(runtime, "c").await;
        assert_eq!(turns.iter().map(|turn| turn.metrics.turn_id.as_str()).collect::<Vec<_>>(), [turn_id]);
    }
    one.shutdown().await;
    assert_eq!(observe(&other, &TurnScript::new("c", "c").done("stop")).await.unwrap().sealed[0].ordinal.get(), 2);
    other.shutdown().await;
    let mut told = Vec::new();
    while let Some(Fact::TurnSealed(sealed)) = told_of_other.next().await {
        told.push(sealed.turn.metrics.turn_id.to_string());
    }
    assert_eq!(told, ["b", "c"]);
}

#[actix_rt::test]
async fn events_of_a_conversation_are_taken_while_very_many_turns_are_imported_into_it() {
    let runtime = start().await;
    let imported = |nth: u64| ImportedTurn {
        conversation_id: id("c"),
        ordinal: Ordinal::new(nth),
        turn: OpenTurn::new(TurnId::new(format!("i{nth}")).unwrap()).seal(&Done::because("stop"), EpochMillis::new(1)),
    };
    let import = Import { turns: (1..=10_000).map(imported).collect() };
    let importing = actix_rt::spawn(runtime.handles().intake.import.send(import));
    let mut beside = 0;
    while !importing.is_finished() {
        beside += 1;
        observe(&runtime, &TurnScript::new("c", &format!("t{beside}")).done("stop")).await.unwrap();
    }
    let receipt = importing.await.unwrap().unwrap().unwrap();
    assert_eq!((receipt.imported, receipt.duplicates), (10_000, 0));
    let revision = runtime.handles().reads.find_revision.send(FindRevision { conversation_id: id("c") }).await;
    assert_eq!(revision.unwrap().unwrap().sealed_turns, 10_000 + beside);
    assert!(beside > 3, "{beside} turns were posted while the import went on");
}

#[actix_rt::test]
async fn a_system_starts_again_on_the_directory_of_one_that_was_shut_down() {
    let directory = tempfile::tempdir().unwrap();
    for ordinal in 1..=3 {
        let runtime = Runtime::builder().data_dir(directory.path()).start().await.unwrap();
        let script = TurnScript::new("c", &format!("t{ordinal}")).done("stop");
        assert_eq!(observe(&runtime, &script).await.unwrap().sealed[0].ordinal.get(), ordinal);
        runtime.shutdown().await;
    }
}

#[actix_rt::test]
async fn reads_on_a_thread_of_ones_own_are_the_same_and_need_no_other_actor() {
    let runtime = start().await;
    let here = runtime.handles().on_this_thread();
    let count = 200;
    for n in 1..=count {
        observe(&runtime, &TurnScript::new("c", &format!("t{n}")).done("stop")).await.unwrap();
        let find = FindRevision { conversation_id: id("c") };
        assert_eq!(here.reads.find_revision.send(find).await.unwrap().unwrap().sealed_turns, n);
    }
    let all = turns(&runtime, "c").await;
    // Short ranges are read on this thread, and long ones on another thread.
    for limit in [1, 100, 1000] {
        let range = TurnRange::after(id("c"), 0, limit);
        let read = here.reads.list_turns.send(ListTurns(range)).await.unwrap().unwrap();
        assert_eq!(read, all[..limit.min(all.len())]);
        let list = ListSealed { after: None, limit };
        let page = here.reads.list_sealed.send(list).await.unwrap().unwrap();
        assert_eq!(page.turns.iter().map(|sealed| &sealed.turn).collect::<Vec<_>>(), read.iter().collect::<Vec<_>>());
        assert_eq!(runtime.handles().reads.list_sealed.send(list).await.unwrap().unwrap(), page);
    }
    observe(&runtime, &TurnScript::new("d", "t").done("stop")).await.unwrap();
    let question = ConversationQuestion::first(ConversationOrder::Recent, 1);
    let list = ListConversations(question.clone());
    let page = here.reads.list_conversations.send(list.clone()).await.unwrap().unwrap();
    let rest = ListConversations(ConversationQuestion { limit: 9, ..question.after(&page[0]) });
    let rest = here.reads.list_conversations.send(rest).await.unwrap().unwrap();
    let mut listed: Vec<_> =
        page.iter().chain(&rest).map(|listed| (listed.conversation_id.clone(), listed.sealed_turns)).collect();
    listed.sort();
    assert_eq!(listed, [(id("c"), count), (id("d"), 1)]);
    assert_eq!(runtime.handles().reads.list_conversations.send(list).await.unwrap().unwrap(), page);
    runtime.shutdown().await;
    for limit in [1, 1000] {
        let range = TurnRange::after(id("c"), 0, limit);
        let refused = here.reads.list_turns.send(ListTurns(range)).await.unwrap();
        assert_eq!(refused.map_err(|fault| fault.kind()), Err(FaultKind::Closed));
        let refused = here.reads.list_sealed.send(ListSealed { after: None, limit }).await.unwrap();
        assert!(
            matches!(&refused, Err(ListSealedError::Read(fault)) if fault.kind() == FaultKind::Closed),
            "{refused:?}"
        );
    }
}

#[actix_rt::test]
async fn a_fact_is_the_stored_turn_and_comes_once() {
    let runtime = start().await;
    let mut subscription = runtime.subscribe();
    let script = TurnScript::new("c", "t").start_with("m").usage(0, 9, 1).done("stop");
    observe(&runtime, &TurnScript::new("c", "open").start()).await.unwrap();
    observe(&runtime, &script).await.unwrap();
    assert!(observe(&runtime, &script).await.unwrap().sealed[0].duplicate);
    let stored = turns(&runtime, "c").await;
    runtime.shutdown().await;

    let Some(Fact::TurnSealed(sealed)) = subscription.next().await else { panic!("no fact") };
    assert_eq!((&sealed.conversation_id, &[sealed.turn.clone()][..]), (&id("c"), &*stored));
    assert_eq!(subscription.next().await, None, "an open turn and a duplicate are no facts");
}

#[actix_rt::test]
async fn a_subscriber_that_never_reads_slows_nothing_and_learns_how_much_it_missed() {
    let runtime = Runtime::builder().facts_kept(2).start().await.unwrap();
    let mut slow = runtime.subscribe();
    let stuck = Probe::<Fact>::start(|_| std::future::pending());
    let forwarding = tokio::task::spawn_local(runtime.subscribe().forward(stuck.recipient()));
    for n in 0..50 {
        observe(&runtime, &TurnScript::new("c", &format!("t{n}")).done("stop")).await.unwrap();
    }
    runtime.shutdown().await;
    assert_eq!(stuck.wait_for(1).await.len(), 1, "an actor that does not answer is sent no second fact");
    forwarding.abort();

    assert_eq!(slow.next().await, Some(Fact::Missed(48)));
    for ordinal in [49, 50] {
        let Some(Fact::TurnSealed(sealed)) = slow.next().await else { panic!("no fact") };
        assert_eq!(sealed.turn.ordinal.get(), ordinal);
    }
    assert_eq!(slow.next().await, None);
}

#[actix_rt::test]
async fn each_actor_reports_its_state() {
    let runtime = start().await;
    observe(&runtime, &TurnScript::new("c", "a").start()).await.unwrap();
    let with_warning = TurnScript::new("c", "b").start_with(&"m".repeat(1000)).done("stop");
    assert_eq!(observe(&runtime, &with_warning).await.unwrap().warnings.len(), 1);
    let operations = &runtime.handles().operations;

    let SystemReport { work, store, sweeper, .. } = operations.report().await.unwrap();
    assert_eq!(work, WorkCounts { active_conversations: 1, in_flight: 0, warnings: 1, died: 0 });
    let conversation = &operations.inspect_conversation;
    let report = conversation.send(InspectConversation { conversation_id: id("c") }).await.unwrap().unwrap();
    assert_eq!((report.open_turns, report.version, report.waiting, report.busy), (1, Some(Version(2)), 0, false));
    assert_eq!(conversation.send(InspectConversation { conversation_id: id("x") }).await.unwrap(), None);
    assert_eq!(operations.report().await.unwrap().work.active_conversations, 1, "a look starts no actor");
    let sizes = store.sizes;
    assert_eq!(store, StoreReport { commits: 2, sizes, ..StoreReport::default() });
    // In memory there is no file, and nothing is in the tables yet.
    assert_eq!((sizes.live_bytes, sizes.file_bytes), (0, 0));
    assert!((100..10_000).contains(&sizes.recent_bytes), "{sizes:?}");
    assert_eq!(sweeper.sealed_turns, 0);
    let operations = operations.clone();
    runtime.shutdown().await;
    assert!(operations.report().await.is_err(), "nobody is left to answer");
}

#[actix_rt::test]
async fn after_a_shutdown_every_handle_is_refused() {
    let runtime = start().await;
    let observe: Recipient<Observe> = runtime.handles().intake.observe.clone();
    runtime.shutdown().await;
    assert!(observe.send(TurnScript::new("c", "t").done("stop").observe()).await.is_err());
}
