//! Compares prices with ones computed by hand.

use super::*;
use crate::report::Cost;
use crate::turn::{
    EpochMillis, Ordinal, SealedTurn, StepId, StepMetrics, StepTimes, StoredTurn, TurnId, TurnMetrics, Usage,
};

fn at(moment: &str) -> EpochMillis {
    let millis = moment.parse::<jiff::Timestamp>().unwrap().as_millisecond();
    EpochMillis::new(millis.try_into().unwrap())
}

fn step(
    model: &'static str,
    provider: Option<&'static str>,
    prompt_tokens: u64,
    output_tokens: u64,
) -> PricedStep<'static> {
    PricedStep {
        model,
        provider,
        at: at("2026-11-01T12:00:00Z"),
        prompt_tokens,
        output_tokens,
        cache_read_tokens: 0,
        cache_write_tokens: 0,
        cache_write_1h_tokens: 0,
    }
}

fn bundled() -> Prices {
    Prices::new(PriceTable::default(), PriceData::bundled())
}

fn with_table(toml: &str) -> Prices {
    Prices::new(PriceTable::from_toml(toml).unwrap(), PriceData::bundled())
}

fn usd(prices: &Prices, step: &PricedStep<'_>) -> Option<String> {
    prices.price(step).map(|price| price.to_string())
}

fn name(prices: &Prices, step: &PricedStep<'_>) -> Option<String> {
    prices.quote(step).map(|quote| quote.name)
}

const HAIKU: &str = "claude-haiku-4-5";

#[test]
fn cache_reads_writes_and_hour_writes_have_prices_of_their_own() {
    let step = PricedStep {
        cache_read_tokens: 6_000,
        cache_write_tokens: 2_000,
        cache_write_1h_tokens: 500,
        ..step(HAIKU, Some("anthropic"), 10_000, 300)
    };
    // In millionths of a dollar: 10,000 - 6,000 - 2,000 = 2,000 uncached at 1, 6,000 read at 0.1, 2,000 - 500 = 1,500
    // written at 1.25, 500 written for an hour at 2, 300 output at 5.
    // 2,000 + 600 + 1,875 + 1,000 + 1,500 = 6,975.
    assert_eq!(usd(&bundled(), &step).unwrap(), "0.006975000000");
    let table = "[[price]]
        model = 'claude-haiku-4-5'
        input = 1
        output = 5
        cache_read = 0.1
        cache_write = 1.25
        cache_write_1h = 2";
    assert_eq!(usd(&with_table(table), &step).unwrap(), "0.006975000000");
    let quotes = [bundled(), with_table(table)].map(|prices| prices.quote(&step).unwrap());
    assert_eq!(quotes[0].rates, quotes[1].rates);
    assert_eq!(
        quotes.map(|quote| (quote.name, quote.source)),
        [("anthropic/claude-haiku-4-5".to_owned(), PriceSource::Data), (HAIKU.to_owned(), PriceSource::Table),]
    );
}

#[test]
fn a_tier_is_above_its_limit_and_applies_to_the_whole_step() {
    let sonnet =
        |prompt_tokens| PricedStep { cache_read_tokens: 100_000, ..step("claude-sonnet-4-5", None, prompt_tokens, 10) };
    let table = with_table(
        "[[price]]
        model = 'claude-sonnet-4-5'
        input = 3
        output = 15
        cache_read = 0.3
        [[price.tier]]
        above = 200_000
        input = 6
        output = 22.5
        cache_read = 0.6",
    );
    for prices in [bundled(), table] {
        // 100,000 at 3 + 100,000 at 0.3 + 10 at 15 = 300,000 + 30,000 + 150.
        assert_eq!(usd(&prices, &sonnet(200_000)).unwrap(), "0.330150000000");
        // The prompt is one token longer: 100,001 at 6 + 100,000 at 0.6 + 10 at 22.5 = 600,006 + 60,000 + 225.
        assert_eq!(usd(&prices, &sonnet(200_001)).unwrap(), "0.660231000000");
        let rates = |prompt_tokens| prices.quote(&sonnet(prompt_tokens)).unwrap().rates;
        assert_eq!([rates(200_000).output, rates(200_001).output].map(|rate| rate.to_string()), ["15", "22.5"]);
    }
}

#[test]
fn a_step_has_the_price_of_its_time() {
    let prices = bundled();
    let before =
        PricedStep { at: at("2026-10-19T23:59:59.999Z"), ..step("mistral-large-4", Some("mistral"), 1_000, 100) };
    let after = PricedStep { at: at("2026-10-20T00:00:00Z"), ..before };
    // 1,000 at 0.68 + 100 at 2.09 = 680 + 209; then 1,000 at 1.36 + 100 at 4.18 = 1,360 + 418.
    assert_eq!([before, after].map(|step| usd(&prices, &step).unwrap()), ["0.000889000000", "0.001778000000"]);
    // A price by the time of day: 1,000 at 0.135, or at 0.27 from 00:30 to 16:30.
    let deepseek = |moment| PricedStep { at: at(moment), ..step("deepseek-chat", Some("deepseek"), 1_000, 0) };
    let moments = ["2026-10-01T00:29:59Z", "2026-10-01T00:30:00Z", "2026-10-01T16:30:00Z"];
    assert_eq!(
        moments.map(|moment| usd(&prices, &deepseek(moment)).unwrap()),
        ["0.000135000000", "0.000270000000", "0.000135000000"]
    );
    let table = with_table(
        "[[price]]
        model = 'mistral-large-4'
        from = 2026-01-01
        input = 1
        output = 1
        [[price]]
        model = 'mistral-large-4'
        from = '2026-10-20T00:00:00+02:00'
        input = 2
        output = 2",
    );
    let in_table = |moment| usd(&table, &PricedStep { at: at(moment), ..before }).unwrap();
    assert_eq!(in_table("2026-01-01T00:00:00Z"), "0.001100000000");
    assert_eq!(in_table("2026-10-19T21:59:59.999Z"), "0.001100000000");
    assert_eq!(in_table("2026-10-19T22:00:00Z"), "0.002200000000");
    // At times before the table's entry begins, the data's price applies.
    assert_eq!(in_table("2025-12-31T23:59:59.999Z"), "0.000889000000");
}

#[test]
fn a_model_that_nobody_knows_has_no_price() {
    let prices = bundled();
    for (model, provider) in
        [("my-finetune", None), ("my-finetune", Some("anthropic")), ("", None), ("my-finetune", Some("my-own"))]
    {
        assert_eq!(usd(&prices, &step(model, provider, 1_000, 10)), None, "{model}");
        assert_eq!(prices.quote(&step(model, provider, 1_000, 10)), None, "{model}");
    }
}

#[test]
fn a_model_listed_without_prices_is_not_free_unless_it_says_so() {
    let prices = bundled();
    let listed = step("gpt-4o", Some("github-copilot"), 1_000, 10);
    assert_eq!((usd(&prices, &listed), prices.quote(&listed)), (None, None));
    let free = step("agentica-org/deepcoder-14b-preview:free", Some("openrouter"), 1_000, 10);
    assert_eq!(usd(&prices, &free).unwrap(), "0.000000000000");
    assert_eq!(name(&prices, &free).unwrap(), "openrouter/agentica-org/deepcoder-14b-preview:free");
}

#[test]
fn more_cached_than_input_is_priced_with_the_whole_prompt() {
    let usage = Usage {
        input_tokens: 10.into(),
        output_tokens: 5.into(),
        cache_read_tokens: Some(70.into()),
        cache_write_tokens: Some(20.into()),
    };
    let step = StepMetrics { step_id: StepId::new("t#0").unwrap(), usage, times: StepTimes::default() };
    let turn: StoredTurn = SealedTurn {
        sealed_at: at("2026-11-01T12:00:00Z"),
        ended_at: None,
        reason: "stop".into(),
        model: Some(HAIKU.into()),
        provider: None,
        project: None,
        cache_write_1h_tokens: None,
        step_details: Vec::new(),
        metrics: TurnMetrics {
            turn_id: TurnId::new("t").unwrap(),
            usage,
            steps: vec![step],
            duration: None,
            context_size: None,
        },
    }
    .at(Ordinal::new(1).unwrap());
    // 10 at 1, 70 read at 0.1, 20 written at 1.25, 5 output at 5: 10 + 7 + 25 + 25 = 67.
    let [(_, cost)] = Cost::of_turn(&turn, &bundled()).try_into().unwrap();
    assert_eq!(cost.usd().unwrap().to_string(), "0.000067000000");
}

#[test]
fn a_price_is_rounded_once_to_the_nearest_pico_dollar() {
    // The prices per token are a third and a half of a pico-dollar. They need all twelve decimal places of dollars per
    // million tokens.
    let prices = with_table("price = [{ model = 'm', input = 0.000000333333, output = 0.0000005 }]");
    // 3 * 0.333333 pico-dollars; 1 * 0.5, which is rounded up; 0.333333 + 0.5.
    let usd = |prompt, output| usd(&prices, &step("m", None, prompt, output)).unwrap();
    assert_eq!(usd(3, 0), "0.000000000001");
    assert_eq!(usd(0, 1), "0.000000000001");
    assert_eq!(usd(1, 0), "0.000000000000");
    assert_eq!(usd(1, 1), "0.000000000001");
}

#[test]
fn the_largest_counts_at_the_largest_price_do_not_overflow() {
    let prices = with_table("price = [{ model = 'm', input = 1000000, output = 1000000 }]");
    let step = PricedStep {
        cache_read_tokens: u64::MAX,
        cache_write_tokens: u64::MAX,
        cache_write_1h_tokens: u64::MAX,
        ..step("m", None, u64::MAX, u64::MAX)
    };
    // Three times 2^64 - 1 tokens at a dollar each: more cached tokens than the prompt has.
    assert_eq!(usd(&prices, &step).unwrap(), "55340232221128654845.000000000000");
}

#[test]
fn a_model_is_found_under_the_usual_forms_of_its_name() {
    let prices = bundled();
    for (model, provider, expected) in [
        ("claude-sonnet-4-5", Some("anthropic"), "anthropic/claude-sonnet-4-5"),
        ("claude-sonnet-4-5-20250929", None, "anthropic/claude-sonnet-4-5"),
        ("anthropic/claude-opus-4.6", None, "anthropic/claude-opus-4-6"),
        ("claude-sonnet-4-5", Some("my-proxy"), "anthropic/claude-sonnet-4-5"),
        ("openai/gpt-5", None, "openai/gpt-5"),
        ("openai/gpt-5", Some("openrouter"), "openrouter/openai/gpt-5"),
        ("o3-20990101", Some("openai"), "openai/o3"),
        ("my-proxy/claude-haiku-4-5", None, "anthropic/claude-haiku-4-5"),
    ] {
        let step = step(model, provider, 1_000, 0);
        assert_eq!(name(&prices, &step).as_deref(), Some(expected), "{model} of {provider:?}");
        assert!(prices.price(&step).is_some());
    }
}

#[test]
fn the_operators_table_wins_and_in_it_the_most_specific_price() {
    let entry = |model: &str, extra: &str, input: u8| {
        format!("[[price]]\nmodel = '{model}'\n{extra}\ninput = {input}\noutput = 0\n")
    };
    let prices = with_table(
        &[
            entry("gpt-*", "", 1),
            entry("gpt-5*", "", 2),
            entry("gpt-5*", "provider = 'OpenAI'", 3),
            entry("gpt-5", "", 4),
            entry("gpt-5", "provider = 'azure'", 5),
            entry("*", "provider = 'mine'", 6),
        ]
        .concat(),
    );
    for (model, provider, input, expected) in [
        ("gpt-4", None, 1, "gpt-*"),
        ("gpt-5-mini", None, 2, "gpt-5*"),
        ("gpt-5-mini", Some("openai"), 3, "OpenAI/gpt-5*"),
        ("openai/gpt-5-mini", None, 3, "OpenAI/gpt-5*"),
        ("gpt-5", Some("openai"), 4, "gpt-5"),
        ("gpt-5-2025-08-07", None, 4, "gpt-5"),
        ("gpt-5", Some("azure"), 5, "azure/gpt-5"),
        ("anything", Some("mine"), 6, "mine/*"),
    ] {
        let quote = prices.quote(&step(model, provider, 1, 0)).unwrap();
        assert_eq!((quote.name.as_str(), quote.rates.input.to_string()), (expected, input.to_string()), "{model}");
        assert_eq!(quote.source, PriceSource::Table);
    }
    assert_eq!(prices.quote(&step(HAIKU, None, 1, 0)).unwrap().source, PriceSource::Data);
}

#[test]
fn what_a_table_leaves_out_costs_as_the_next_of_its_kind() {
    let prices = with_table(
        "[[price]]
        model = 'm'
        input = 2
        output = 10
        [[price.tier]]
        above = 100
        input = 4
        [[price]]
        model = 'n'
        input = 2
        output = 10
        cache_write = 2.5
        [[price.tier]]
        above = 1000
        cache_write = 7
        [[price.tier]]
        above = 100
        cache_write = 5",
    );
    let rates = |model, prompt_tokens| {
        let rates = prices.quote(&step(model, None, prompt_tokens, 0)).unwrap().rates;
        let Rates { input, output, cache_read, cache_write, cache_write_1h } = rates;
        [input, output, cache_read, cache_write, cache_write_1h].map(|rate| rate.to_string()).join(" ")
    };
    assert_eq!(rates("m", 100), "2 10 2 2 2");
    assert_eq!(rates("m", 101), "4 10 4 4 4");
    assert_eq!(rates("n", 100), "2 10 2 2.5 2.5");
    assert_eq!(rates("n", 1_000), "2 10 2 5 5");
    assert_eq!(rates("n", 1_001), "2 10 2 7 7");
}

#[test]
fn a_table_with_a_mistake_is_refused_with_its_line() {
    let refused = |toml: &str| PriceTable::from_toml(toml).unwrap_err();
    let price = |line: &str| format!("[[price]]\nmodel = 'm'\ninput = 1\noutput = 2\n{line}\n");
    for (line, problem) in [
        ("cache_read = -1", PriceTableProblem::Rate),
        ("cache_read = 1e-3", PriceTableProblem::Rate),
        ("cache_read = nan", PriceTableProblem::Rate),
        ("cache_read = true", PriceTableProblem::Rate),
        ("cache_read = 'a lot'", PriceTableProblem::Rate),
        ("cache_read = 0.0000000000001", PriceTableProblem::Rate),
        ("from = 'yesterday'", PriceTableProblem::From),
        ("from = 2026", PriceTableProblem::From),
    ] {
        assert_eq!(refused(&price(line)), PriceTableError { line: 5, problem }, "{line}");
    }
    for pattern in ["", "**", "a*b", "*a*"] {
        let toml = price("").replace("'m'", &format!("'{pattern}'"));
        assert_eq!(refused(&toml), PriceTableError { line: 2, problem: PriceTableProblem::Pattern }, "{pattern}");
    }
    let twice = [price("provider = 'P'"), price("provider = 'p'")].concat();
    assert_eq!(refused(&twice), PriceTableError { line: 7, problem: PriceTableProblem::Twice });
    for (toml, message) in [
        ("[[price]]\nmodel = 'm'\ninput = 1\n", "line 1: missing field `output`"),
        (&price("cache_raed = 1"), "line 5: unknown field `cache_raed`"),
        ("price = 1", "line 1: invalid type"),
        ("x", "line 1: "),
    ] {
        let error = refused(toml);
        assert!(error.to_string().starts_with(message), "{error}");
    }
}

#[test]
fn a_price_in_a_table_is_read_as_it_is_written() {
    let prices = with_table("[[price]]\nmodel = \"m\"\ninput = 1_0.1 # dollars\noutput = '0.3'\ncache_read = 0.10\n");
    let rates = prices.quote(&step("m", None, 1, 0)).unwrap().rates;
    assert_eq!([rates.input, rates.output, rates.cache_read].map(|rate| rate.to_string()), ["10.1", "0.3", "0.1"]);
}

#[test]
fn data_from_a_file_takes_the_place_of_the_built_in_data() {
    let json = r#"[{"id": "acme", "name": "Acme", "api_pattern": "acme", "model_match": {"starts_with": "acme-"},
        "models": [{"id": "acme-1", "match": {"equals": "acme-1"}, "prices": {"input_mtok": 2, "output_mtok": 4}}]}]"#;
    let data = PriceData::from_json(json.as_bytes(), "prices.json", "2026-11-20").unwrap();
    let prices = Prices::new(PriceTable::default(), data);
    assert_eq!((prices.data_name(), prices.data_date()), ("prices.json", "2026-11-20"));
    // 1,000 at 2 + 10 at 4 = 2,040.
    assert_eq!(usd(&prices, &step("acme-1", None, 1_000, 10)).unwrap(), "0.002040000000");
    assert_eq!(usd(&prices, &step(HAIKU, None, 1_000, 10)), None);
    assert_eq!(bundled().data_name(), "genai-prices 0.2.1");
}

#[test]
fn other_prices_have_another_digest() {
    let table = "price = [{ model = 'm', input = 1, output = 1 }]";
    let json = |id: &str| {
        let json = format!(r#"[{{"id": "{id}", "name": "A", "api_pattern": "a", "models": []}}]"#);
        PriceData::from_json(json.as_bytes(), "file", "2026-11-20").unwrap()
    };
    let digests = [
        bundled().digest(),
        with_table(table).digest(),
        with_table(&table.replace('1', "2")).digest(),
        Prices::new(PriceTable::default(), json("a")).digest(),
        Prices::new(PriceTable::default(), json("b")).digest(),
    ];
    for (i, digest) in digests.iter().enumerate() {
        assert!(!digests[..i].contains(digest), "{i}");
    }
    assert_eq!(digests[0], bundled().digest());
}
