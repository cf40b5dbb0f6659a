//! Asks a system about its turns. Each question is a message.

use std::sync::Arc;

use turn_metrics::actors::{
    BuildReport, FindRevision, ListConversations, ListOpenTurns, ListSealed, ListTurns, Observe,
};
use turn_metrics::report::{
    Cost, Figures, Grouping, Period, PeriodUnit, PicoDollars, PriceBook, PricedStep, Selection, Zone,
};
use turn_metrics::runtime::Runtime;
use turn_metrics::store::{ConversationOrder, ConversationQuestion, ReportQuestion, TurnRange};
use turn_metrics::turn::{ConversationId, parse_line};

/// The events that a kernel sends in two conversations.
const EVENTS: &str = r#"{"type":"turn-start","conversationId":"one","turnId":"t1","model":"large"}
{"type":"usage","conversationId":"one","turnId":"t1","stepId":"t1#0","usage":{"inputTokens":1000,"outputTokens":50}}
{"type":"done","conversationId":"one","turnId":"t1","reason":"stop","endedAt":1780000000000}
{"type":"turn-start","conversationId":"two","turnId":"t2","model":"small"}
{"type":"usage","conversationId":"two","turnId":"t2","stepId":"t2#0","usage":{"inputTokens":9000,"outputTokens":100}}
{"type":"done","conversationId":"two","turnId":"t2","reason":"stop","endedAt":1780000060000}
{"type":"turn-start","conversationId":"one","turnId":"t3","model":"large"}
{"type":"usage","conversationId":"one","turnId":"t3","stepId":"t3#0","usage":{"inputTokens":1200,"outputTokens":0}}"#;

/// A price book with a millionth of a dollar per token. A model named `large` costs three times as much.
#[derive(Debug)]
struct Prices;

impl PriceBook for Prices {
    fn price(&self, step: &PricedStep<'_>) -> Option<PicoDollars> {
        let price = if step.model == "large" { 3_000_000 } else { 1_000_000 };
        Some(PicoDollars::new(price * i128::from(step.prompt_tokens + step.output_tokens)))
    }

    /// Change this version with the prices, so that the costs of all stored turns are computed again.
    fn digest(&self) -> u64 {
        1
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    actix::System::new().block_on(async {
        let runtime = Runtime::builder().prices(Arc::new(Prices)).start().await?;
        for line in EVENTS.lines() {
            let Some(event) = parse_line(line.as_bytes())? else { continue };
            let observe = Observe { conversation_id: event.conversation_id, events: vec![event.event] };
            runtime.handles().intake.observe.send(observe).await??;
        }
        let reads = &runtime.handles().reads;
        let one = ConversationId::new("one")?;

        // The latest turns of a conversation, and the cost of each turn.
        for turn in reads.list_turns.send(ListTurns(TurnRange::latest(one.clone(), 10))).await?? {
            let cost = Cost::total_of_turn(&turn, &Prices).usd().unwrap_or_default();
            println!("one {} {}: {cost} USD", turn.ordinal, turn.metrics.turn_id);
        }

        // The turns of the conversation that have not ended yet.
        for staged in reads.list_open_turns.send(ListOpenTurns { conversation_id: one.clone() }).await??.turns {
            let so_far = staged.turn.so_far().metrics;
            println!("one is open: {} with {} input tokens so far", so_far.turn_id, so_far.usage.input_tokens.get());
        }

        // This question returns whether the conversation changed since it was read, without reading it again.
        let revision = reads.find_revision.send(FindRevision { conversation_id: one }).await??;
        println!("one has {} sealed turn", revision.sealed_turns);

        // All sealed turns of all conversations. With `after`, a reader continues after the last turn that it has read.
        let page = reads.list_sealed.send(ListSealed { after: None, limit: 100 }).await??;
        let sealed = page.turns.iter().map(|sealed| sealed.turn.metrics.turn_id.as_str());
        println!("in order: {}", sealed.collect::<Vec<_>>().join(", "));

        // The conversations that cost the most.
        let dearest = ConversationQuestion::first(ConversationOrder::Cost, 10);
        for listed in reads.list_conversations.send(ListConversations(dearest)).await?? {
            let cost = listed.sums.cost.usd().unwrap_or_default();
            println!("{}: {} turn, {cost} USD", listed.conversation_id, listed.sealed_turns);
        }

        // The sums of a day, by model.
        let zone = Zone::named("Europe/Berlin")?;
        let whole = Period::around(1_780_000_000_000, 1_780_000_100_000)?;
        let question = ReportQuestion {
            periods: zone.periods(PeriodUnit::Day, whole).collect(),
            grouping: Grouping { model: true, ..Grouping::default() },
            selection: Selection::default(),
        };
        let report = reads.build_report.send(BuildReport(question)).await??;
        for (_, label, row) in report.breakdown.rows() {
            let (model, tokens) = (label.model.as_ref().map_or("-", |model| model.as_str()), Figures::of(&row.rollup));
            println!("{model}: {} input tokens, {} USD", tokens.usage.input_tokens, row.cost.usd().unwrap_or_default());
        }
        runtime.shutdown().await;
        Ok(())
    })
}
