//! Property tests of the fold and of the JSON of events, with generated events.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn count() -> impl Strategy<Value = TokenCount> {
    // Small counts are often equal, and the largest counts overflow sums; both reveal mistakes.
    prop_oneof![0u64..4, (TokenCount::MAX.get() - 2)..=TokenCount::MAX.get()].prop_map(|n| TokenCount::new(n).unwrap())
}

fn usage() -> impl Strategy<Value = Usage> {
    (count(), count(), proptest::option::of(count()), proptest::option::of(count())).prop_map(
        |(input_tokens, output_tokens, cache_read_tokens, cache_write_tokens)| Usage {
            input_tokens,
            output_tokens,
            cache_read_tokens,
            cache_write_tokens,
        },
    )
}

fn millis() -> impl Strategy<Value = Millis> {
    prop_oneof![
        (0u32..5).prop_map(Millis::from),
        (0.0..1e6).prop_map(|x| Millis::new(x).unwrap()),
        any::<f64>().prop_filter_map("finite and not negative", |x| Millis::new(x).ok()),
    ]
}

fn times() -> impl Strategy<Value = StepTimes> {
    let time = || proptest::option::of(millis());
    (time(), time(), time()).prop_map(|(ttft, decode, gen_total)| StepTimes { ttft, decode, gen_total })
}

fn step_id() -> impl Strategy<Value = StepId> {
    (0u8..3).prop_map(|n| StepId::new(format!("t#{n}")).unwrap())
}

fn label() -> impl Strategy<Value = Option<Label>> {
    proptest::option::of("\\PC{0,3}".prop_map(|text| Label::from(&*text)))
}

fn counter() -> impl Strategy<Value = Option<TokenCount>> {
    proptest::option::of(count())
}

fn report() -> impl Strategy<Value = UsageReport> {
    (counter(), counter(), counter(), counter(), counter()).prop_map(
        |(input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens)| UsageReport {
            input_tokens,
            output_tokens,
            cache_read_tokens,
            cache_write_tokens,
            cache_write_1h_tokens,
        },
    )
}

fn usage_report() -> impl Strategy<Value = Progress> {
    (proptest::option::of(step_id()), report(), any::<bool>()).prop_map(|(step_id, report, is_final)| Progress::Usage {
        step_id,
        report,
        is_final,
    })
}

fn labels() -> impl Strategy<Value = TurnLabels> {
    (label(), label(), label()).prop_map(|(model, provider, project)| TurnLabels { model, provider, project })
}

fn progress() -> impl Strategy<Value = Progress> {
    prop_oneof![
        labels().prop_map(Progress::Start),
        usage_report(),
        usage_report(),
        (step_id(), times(), label(), label()).prop_map(|(step_id, times, model, provider)| Progress::StepComplete {
            step_id,
            times,
            model,
            provider
        }),
        Just(Progress::Failed),
    ]
}

fn moment() -> impl Strategy<Value = KernelMoment> {
    (0..=1u64 << 50).prop_map(|millis| EpochMillis::new(millis).into())
}

fn done() -> impl Strategy<Value = Done> {
    let reason = "\\PC{0,5}".prop_map(|text| Label::from(&*text));
    let optional = (proptest::option::of(millis()), proptest::option::of(report()), proptest::option::of(count()));
    let beside = (label(), label(), proptest::option::of(moment()));
    (reason, optional, beside).prop_map(|(reason, (duration, usage, context_size), (model, provider, ended_at))| Done {
        reason,
        duration,
        usage,
        context_size,
        model,
        provider,
        ended_at,
    })
}

fn turn_id(n: u8) -> TurnId {
    TurnId::new(format!("t{n}")).unwrap()
}

fn fold<'a>(turn: &mut OpenTurn, events: impl IntoIterator<Item = &'a Progress>) {
    for event in events {
        turn.fold(event);
    }
}

fn folded<'a>(events: impl IntoIterator<Item = &'a Progress>) -> OpenTurn {
    let mut turn = OpenTurn::new(turn_id(0));
    fold(&mut turn, events);
    turn
}

pub(crate) fn stored_turn() -> impl Strategy<Value = StoredTurn> {
    // Characters that may need an escape are frequent.
    let text = |allowed: &'static str| {
        proptest::collection::vec(prop_oneof![Just('"'), Just('\\'), any::<char>()], 0..9)
            .prop_map(move |text| text.into_iter().collect::<String>() + allowed)
    };
    let id = text("#").prop_filter_map("an id", |text| TurnId::new(text.replace(char::is_control, "/")).ok());
    let step = (id.clone(), usage(), times()).prop_map(|(id, usage, times)| StepMetrics {
        step_id: StepId::new(id.as_str()).unwrap(),
        usage,
        times,
    });
    let metrics = (id.clone(), usage(), vec(step, 0..4), proptest::option::of(millis()), proptest::option::of(count()));
    let label = || text("").prop_map(|text| Label::from(&*text));
    let labels = move || proptest::option::of(label());
    let details = (id, labels(), labels(), proptest::option::of(count()));
    let details = details.prop_map(|(id, model, provider, cache_write_1h_tokens)| StepDetails {
        step_id: StepId::new(id.as_str()).unwrap(),
        model,
        provider,
        cache_write_1h_tokens,
    });
    let moments = (any::<u64>(), proptest::option::of(any::<u64>()));
    let envelope = (1..=u64::MAX, moments, label(), labels(), labels(), labels());
    let beside = (proptest::option::of(count()), vec(details, 0..3));
    (envelope, beside, metrics).prop_map(
        |(
            (ordinal, (sealed_at, ended_at), reason, model, provider, project),
            (cache_write_1h_tokens, step_details),
            (turn_id, usage, steps, duration, context_size),
        )| StoredTurn {
            ordinal: Ordinal::new(ordinal).unwrap(),
            sealed_at: EpochMillis::new(sealed_at),
            ended_at: ended_at.map(EpochMillis::new),
            reason,
            model,
            provider,
            project,
            cache_write_1h_tokens,
            step_details,
            metrics: TurnMetrics { turn_id, usage, steps, duration, context_size },
        },
    )
}

proptest! {
    #[test]
    fn the_join_is_commutative_associative_and_idempotent(a in report(), b in report(), c in report()) {
        prop_assert_eq!(a.join(b), b.join(a));
        prop_assert_eq!(a.join(b).join(c), a.join(b.join(c)));
        prop_assert_eq!(a.join(a), a);
    }

    /// A final report replaces the others whenever it arrives. If it lacks an input or output counter, the others
    /// supply it.
    #[test]
    fn reports_join_to_the_same_in_any_order_and_when_repeated(
        (reports, shuffled) in vec((report(), any::<bool>()), 0..8).prop_flat_map(|reports| {
            let twice: Vec<_> = reports.iter().chain(&reports).copied().collect();
            (Just(reports), Just(twice).prop_shuffle())
        }),
    ) {
        let joined = |reports: &[(UsageReport, bool)]| {
            let mut joined = UsageReports::default();
            for (report, is_final) in reports {
                joined.take(*report, *is_final);
            }
            joined
        };
        prop_assert_eq!(joined(&reports), joined(&shuffled));

        // The oracle treats each counter separately.
        let said: Vec<_> = reports.iter().filter(|(report, _)| !report.is_silent()).collect();
        let largest = |of: fn(&UsageReport) -> Option<TokenCount>, finals: bool| {
            said.iter().filter(|(_, is_final)| *is_final == finals).filter_map(|(report, _)| of(report)).max()
        };
        let has_final = said.iter().any(|(_, is_final)| *is_final);
        let filled = |of| if has_final { largest(of, true).or(largest(of, false)) } else { largest(of, false) };
        let expected = UsageReport {
            input_tokens: filled(|report| report.input_tokens),
            output_tokens: filled(|report| report.output_tokens),
            cache_read_tokens: largest(|report| report.cache_read_tokens, has_final),
            cache_write_tokens: largest(|report| report.cache_write_tokens, has_final),
            cache_write_1h_tokens: largest(|report| report.cache_write_1h_tokens, has_final),
        };
        prop_assert_eq!(joined(&reports).joined(), (!said.is_empty()).then_some(expected));
    }

    /// A missing counter does not erase a known one.
    #[test]
    fn a_done_without_tokens_changes_no_usage(
        events in vec(usage_report(), 0..8),
        done in done(),
        silent in proptest::option::of(prop_oneof![
            Just(UsageReport::default()),
            Just(Usage::default().into()),
            counter().prop_map(|cache_read_tokens| UsageReport { cache_read_tokens, ..UsageReport::default() }),
        ]),
    ) {
        let usage = |usage| folded(&events).seal(&Done { usage, ..done.clone() }, EpochMillis::new(7)).metrics.usage;
        if folded(&events) != folded(&[]) {
            prop_assert_eq!(usage(silent), usage(None));
        }
    }

    #[test]
    fn a_context_size_is_never_0(events in vec(progress(), 0..8), done in done()) {
        let metrics = folded(&events).seal(&done, EpochMillis::new(7)).metrics;
        prop_assert!(metrics.context_size.is_none_or(|size| size > TokenCount::ZERO));
    }

    /// The order of reports may only change the order of the steps, and nothing else of the turn.
    #[test]
    fn usage_events_may_be_repeated_and_in_any_order(
        (events, shuffled) in vec(usage_report(), 0..12).prop_flat_map(|events| {
            let twice: Vec<_> = events.iter().chain(&events).cloned().collect();
            (Just(events), Just(twice).prop_shuffle())
        }),
    ) {
        let sorted = |mut turn: OpenTurn| {
            let mut steps = turn.steps.to_vec();
            steps.sort_by(|a, b| a.id.cmp(&b.id));
            turn.steps = steps.into_iter().collect();
            turn
        };
        prop_assert_eq!(sorted(folded(&events)), sorted(folded(&shuffled)));
    }

    #[test]
    fn sending_an_open_turn_again_from_any_point_on_changes_nothing(events in vec(progress(), 1..12), from in any::<prop::sample::Index>()) {
        let once = folded(&events);
        let mut again = once.clone();
        fold(&mut again, &events[from.index(events.len())..]);
        prop_assert_eq!(once, again);
    }

    #[test]
    fn events_of_different_turns_commute(events in vec((0u8..2, progress()), 0..16)) {
        let mut interleaved = [OpenTurn::new(turn_id(0)), OpenTurn::new(turn_id(1))];
        for (turn, event) in &events {
            interleaved[usize::from(*turn)].fold(event);
        }
        for n in [0u8, 1] {
            let mut alone = OpenTurn::new(turn_id(n));
            fold(&mut alone, events.iter().filter(|(turn, _)| *turn == n).map(|(_, event)| event));
            prop_assert_eq!(&alone, &interleaved[usize::from(n)]);
        }
    }

    #[test]
    fn sealing_is_total_and_its_metrics_read_back_equal(events in vec(progress(), 0..12), done in done()) {
        let stored = folded(&events).seal(&done, EpochMillis::new(7)).at(Ordinal::after(0));
        let json = serde_json::to_string(&stored).unwrap();
        let read: StoredTurn = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(serde_json::to_string(&read).unwrap(), json);
        prop_assert_eq!(read, stored);
    }

    #[test]
    fn a_stored_turn_written_as_json_reads_back_equal(stored in stored_turn()) {
        let json = serde_json::to_vec(&stored).unwrap();
        prop_assert_eq!(serde_json::from_slice::<StoredTurn>(&json).unwrap(), stored);
    }

    #[test]
    fn an_event_written_as_json_reads_back_equal(progress in progress(), done in done(), is_done in any::<bool>()) {
        let kind = if is_done { TurnEventKind::Done(done) } else { TurnEventKind::Progress(progress) };
        let event = KernelEvent {
            conversation_id: ConversationId::new("c \"\\/\u{1f980}").unwrap(),
            event: TurnEvent { turn_id: turn_id(0), kind },
        };
        let line = serde_json::to_vec(&event).unwrap();
        prop_assert_eq!(parse_line(&line).unwrap(), Some(event));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(line in vec(any::<u8>(), 0..200)) {
        let _ = parse_line(&line);
    }
}
