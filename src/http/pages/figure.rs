//! Numbers, times and names as markup. The text is short, the tooltip has the exact value, and the attribute `value`
//! has it for programs.

use jiff::Timestamp;
use maud::{Markup, PreEscaped, Render, html};

use crate::deceptive::{is_deceptive, plain};
use crate::readable;
use crate::report::{CostFigures, PicoDollars, Zone};
use crate::turn::Label;

/// Shows that a figure is not known.
pub(crate) fn unknown() -> Markup {
    dash("not known: nothing that it is computed from was reported")
}

fn dash(title: &str) -> Markup {
    html! { span class="unknown" title=(title) { span aria-hidden="true" { "–" } span class="hidden" { "not known" } } }
}

fn data(value: &impl Render, title: &str, text: &str) -> Markup {
    html! { data value=(value) title=(title) { (text) } }
}

/// Shows a count of something, such as turns.
pub(crate) fn count(count: impl Into<i128>, of: &str) -> Markup {
    let count = count.into();
    data(&count.to_string(), &format!("{} {of}", readable::grouped(count)), &readable::count(count))
}

/// Shows a count of something with its name.
pub(crate) fn counted(count: impl Into<i128>, one: &str, many: &str) -> Markup {
    let count = count.into();
    let name = if count == 1 { one } else { many };
    html! { (self::count(count, name)) " " (name) }
}

/// Shows how many things are in memory.
pub(crate) fn length(length: usize, of: &str) -> Markup {
    count(u64::try_from(length).unwrap_or(u64::MAX), of)
}

/// Shows a count of tokens.
pub(crate) fn tokens(tokens: impl Into<i128>) -> Markup {
    count(tokens, "tokens")
}

/// Shows a count of tokens that may not be known.
pub(crate) fn optional_tokens(known: Option<impl Into<i128>>) -> Markup {
    known.map_or_else(unknown, tokens)
}

/// Returns with how many decimal places the amounts of a tile or a column are shown: all with cents if one of them is a
/// dollar or more, else all with four places.
pub(crate) fn places(amounts: impl IntoIterator<Item = Option<PicoDollars>>) -> u32 {
    amounts.into_iter().flatten().map(readable::dollar_places).min().unwrap_or(4)
}

fn money_text(usd: PicoDollars, places: u32) -> String {
    let text = readable::dollars(usd, places);
    let sign = text.get(..1).filter(|sign| ["<", "-"].contains(sign)).unwrap_or_default();
    format!("{sign}${}", &text[sign.len()..])
}

fn money(usd: PicoDollars, mark: &str, places: u32) -> Markup {
    data(&usd.to_string(), &format!("${usd}"), &(money_text(usd, places) + mark))
}

/// Shows a cost with this number of decimal places. A `+` follows a cost that leaves tokens out.
pub(crate) fn cost(cost: &CostFigures, places: u32) -> Markup {
    let Some(usd) = cost.usd else { return dash(&left_out(cost, places)) };
    if cost.unpriced_tokens <= 0 {
        return money(usd, "", places);
    }
    html! { span title=(left_out(cost, places)) { (money(usd, "+", places)) } }
}

/// Returns what a cost leaves out, in words. Empty if the cost is complete.
pub(crate) fn left_out(cost: &CostFigures, places: u32) -> String {
    /// The text has only some names. The page of the models shows all of them.
    const MAX_NAMES: usize = 5;
    if cost.unpriced_tokens <= 0 {
        return String::new();
    }
    let names: Vec<_> = cost.unpriced_models.iter().take(MAX_NAMES).map(|name| plain(name.as_str())).collect();
    let more = if cost.unpriced_models.len() > MAX_NAMES { " and others" } else { "" };
    let of = if names.is_empty() { String::new() } else { format!(" of {}{more}", names.join(", ")) };
    let tokens = readable::grouped(cost.unpriced_tokens);
    match cost.usd {
        Some(usd) => {
            format!("at least {}: {tokens} tokens{of} have no price and are not in it", money_text(usd, places))
        }
        None => format!("{tokens} tokens{of} have no price"),
    }
}

/// Shows an amount of money with this number of decimal places.
pub(crate) fn amount(usd: Option<PicoDollars>, places: u32) -> Markup {
    usd.map_or_else(unknown, |usd| money(usd, "", places))
}

/// Returns how many decimal places the rates of a column need: as many as the longest one, and at least cents.
pub(crate) fn rate_places(rates: impl IntoIterator<Item = PicoDollars>) -> u32 {
    let needed = |usd: PicoDollars| readable::rate(usd).split_once('.').map_or(0, |(_, places)| places.len());
    let longest = rates.into_iter().map(needed).max().unwrap_or_default();
    u32::try_from(longest).unwrap_or_default().max(2)
}

/// Shows the price of a million tokens with this number of decimal places.
pub(crate) fn rate(usd: PicoDollars, places: u32) -> Markup {
    data(&usd.to_string(), &format!("${usd} per million tokens"), &money_text(usd, places))
}

/// Shows a share in percent.
pub(crate) fn share(share: Option<f64>) -> Markup {
    share
        .map_or_else(unknown, |share| data(&share.to_string(), &format!("{}%", share * 100.0), &readable::share(share)))
}

/// Shows a time in milliseconds.
pub(crate) fn duration(millis: Option<f64>) -> Markup {
    millis
        .map_or_else(unknown, |millis| data(&millis.to_string(), &format!("{millis} ms"), &readable::duration(millis)))
}

/// Shows a speed.
pub(crate) fn speed(speed: Option<f64>) -> Markup {
    speed.map_or_else(unknown, |speed| {
        data(&speed.to_string(), &format!("{speed} tokens per second"), &format!("{} tok/s", readable::speed(speed)))
    })
}

/// Shows a number of bytes.
pub(crate) fn bytes(bytes: u64) -> Markup {
    data(&bytes.to_string(), &format!("{} bytes", readable::grouped(bytes.into())), &readable::bytes(bytes))
}

/// Shows a moment by the clock of a zone.
pub(crate) fn moment(millis: impl TryInto<i64>, zone: &Zone) -> Markup {
    moment_as(millis.try_into().unwrap_or(i64::MAX), zone, "", None)
}

/// Shows the end of the present quarter of an hour, with which a period up to now ends.
pub(crate) fn now(quarter_end: i64, zone: &Zone) -> Markup {
    moment_as(quarter_end, zone, "until the end of this quarter of an hour: ", Some("now"))
}

/// Shows a moment by the clock of a zone, or by another text. The tooltip has the exact moment after a beginning.
fn moment_as(millis: i64, zone: &Zone, beginning: &str, text: Option<&str>) -> Markup {
    let Some((clock, at)) = zone.clock(millis).zip(Timestamp::from_millisecond(millis).ok()) else {
        return unknown();
    };
    let exact = format!("{beginning}{} {}", clock.strftime("%Y-%m-%d %H:%M:%S%.3f"), zone.name());
    html! {
        time datetime=(at) title=(exact) {
            @if let Some(text) = text { (text) } @else { (clock.strftime("%Y-%m-%d %H:%M")) }
        }
    }
}

/// Shows a text from outside, such as an id or the name of a model. Characters that would deceive its reader are
/// escaped.
pub(crate) fn name(text: &str) -> Markup {
    html! { bdi class="name" { (plain(text)) } }
}

/// Returns the value of an input as the reader gave it. Deceptive characters are references to characters, so that the
/// page has none of them, and the form still sends the same text. The exceptions are control characters to which HTML
/// cannot refer; no id contains them.
pub(crate) fn input_value(text: &str) -> Markup {
    let mut value = String::with_capacity(text.len());
    for c in html! { (text) }.into_string().chars() {
        if c.is_control() || is_deceptive(c) {
            value.extend(["&#", &u32::from(c).to_string(), ";"]);
        } else {
            value.push(c);
        }
    }
    PreEscaped(value)
}

/// Shows an id. The middle of a long one is left out; the tooltip has the whole id.
pub(crate) fn id(id: &str) -> Markup {
    /// Most ids are shorter.
    const MAX_CHARS: usize = 56;
    const LAST_CHARS: usize = 12;
    let text = plain(id);
    let count = text.chars().count();
    if count <= MAX_CHARS {
        return html! { bdi class="name" { (text) } };
    }
    let first: String = text.chars().take(MAX_CHARS - LAST_CHARS).collect();
    let last: String = text.chars().skip(count - LAST_CHARS).collect();
    html! { bdi class="name" title=(text) { (first) "…" (last) } }
}

/// Shows the name of a model, or that it is not known.
pub(crate) fn model(model: Option<&Label>) -> Markup {
    model.map_or_else(|| html! { span class="unknown" { (NO_MODEL) } }, |model| name(model.as_str()))
}

/// What stands in place of the name of a model that no kernel named.
pub(crate) const NO_MODEL: &str = "model not named";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_in_cents_unless_it_is_small_and_may_be_negative() {
        for (pico_dollars, text) in [
            (117_114_000_000_000, "$117.11"),
            (999_950_000_000, "$1.0000"),
            (50_400_000_000, "$0.0504"),
            (1, "<$0.0001"),
            (-20_500_000_000, "-$0.0205"),
            (-3_000_000_000_000, "-$3.00"),
        ] {
            let usd = Some(PicoDollars::new(pico_dollars));
            let html = amount(usd, places([usd])).into_string();
            assert!(html.ends_with(&format!(">{}</data>", text.replace('<', "&lt;"))), "{html}");
        }
        assert_eq!(amount(None, places([None])).into_string(), unknown().into_string());
    }

    #[test]
    fn the_amounts_of_a_tile_or_a_column_have_the_same_number_of_places() {
        let texts = |amounts: &[i128]| {
            let amounts: Vec<_> = amounts.iter().map(|usd| Some(PicoDollars::new(*usd))).collect();
            let places = places(amounts.iter().copied().chain([None]));
            let shown = amounts.iter().map(|usd| amount(*usd, places).into_string());
            shown.map(|html| html.split(['>', '<']).nth(2).unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(texts(&[960_300_000_000, 1_303_000_000_000, -20_500_000_000]), ["$0.96", "$1.30", "-$0.02"]);
        assert_eq!(texts(&[960_300_000_000, 20_500_000_000]), ["$0.9603", "$0.0205"]);
        let rates = [3_000_000_000_000, 125_000_000_000].map(PicoDollars::new);
        let places = rate_places(rates);
        let shown = rates.map(|usd| rate(usd, places).into_string());
        assert!(shown[0].contains(">$3.000<") && shown[1].contains(">$0.125<"), "{shown:?}");
        assert_eq!(rate_places([rates[0]]), 2);
    }

    #[test]
    fn a_number_is_short_and_its_exact_value_stands_beside_it() {
        for (markup, html) in [
            (tokens(1_234_567), r#"<data value="1234567" title="1,234,567 tokens">1.23M</data>"#),
            (share(Some(0.25)), r#"<data value="0.25" title="25%">25.0%</data>"#),
            (duration(Some(1234.5)), r#"<data value="1234.5" title="1234.5 ms">1.23 s</data>"#),
            (speed(Some(61.25)), r#"<data value="61.25" title="61.25 tokens per second">61.2 tok/s</data>"#),
            (bytes(2048), r#"<data value="2048" title="2,048 bytes">2.00 KiB</data>"#),
            (
                rate(PicoDollars::new(300_000_000_000), 2),
                r#"<data value="0.300000000000" title="$0.300000000000 per million tokens">$0.30</data>"#,
            ),
        ] {
            assert_eq!(markup.into_string(), html);
        }
        let counts = [1, 2000].map(|steps| counted(steps, "step", "steps").into_string());
        let expected = [
            r#"<data value="1" title="1 step">1</data> step"#,
            r#"<data value="2000" title="2,000 steps">2,000</data> steps"#,
        ];
        assert_eq!(counts, expected);
        for markup in [share(None), duration(None), speed(None), optional_tokens(None::<i128>)] {
            assert_eq!(markup.into_string(), unknown().into_string());
        }
    }

    fn costs(usd: Option<i128>, unpriced_tokens: i128, models: &[&str]) -> CostFigures {
        let unpriced_models = models.iter().map(|model| (*model).into()).collect();
        CostFigures { usd: usd.map(PicoDollars::new), unpriced_tokens, unpriced_models }
    }

    #[test]
    fn a_cost_says_what_it_leaves_out() {
        assert_eq!(
            cost(&costs(Some(50_400_000_000), 0, &[]), 4).into_string(),
            r#"<data value="0.050400000000" title="$0.050400000000">$0.0504</data>"#
        );
        let small = cost(&costs(Some(1), 0, &[]), 4).into_string();
        assert!(small.ends_with(">&lt;$0.0001</data>"), "{small}");
        let part = cost(&costs(Some(123_000_000_000_000), 1200, &["<b>", "x"]), 2).into_string();
        assert!(part.contains(">$123.00+</data>"), "{part}");
        let title = r#"title="at least $123.00: 1,200 tokens of &lt;b&gt;, x have no price and are not in it""#;
        assert!(part.contains(title), "{part}");
        let none = cost(&costs(None, 7, &[]), 4).into_string();
        assert!(none.contains("7 tokens have no price") && !none.contains('$'), "{none}");
    }

    #[test]
    fn a_moment_is_by_the_clock_of_its_zone() {
        let zone = Zone::named("Asia/Kathmandu").unwrap();
        assert_eq!(
            moment(1_780_000_000_000_i64, &zone).into_string(),
            r#"<time datetime="2026-05-28T20:26:40Z" title="2026-05-29 02:11:40.000 Asia/Kathmandu">2026-05-29 02:11</time>"#
        );
        assert_eq!(moment(i64::MAX, &zone).into_string(), unknown().into_string());
    }

    #[test]
    fn a_long_id_is_shortened_in_the_middle() {
        assert_eq!(id(&"é".repeat(56)).into_string(), format!(r#"<bdi class="name">{}</bdi>"#, "é".repeat(56)));
        let long = "a".repeat(50) + "<b>" + &"c".repeat(50);
        let html = id(&long).into_string();
        assert!(html.ends_with(&format!(">{}…{}</bdi>", "a".repeat(44), "c".repeat(12))), "{html}");
        assert!(html.contains(&format!("title=\"{}&lt;b&gt;{}\"", "a".repeat(50), "c".repeat(50))), "{html}");
    }

    #[test]
    fn the_value_of_an_input_has_references_for_deceptive_characters() {
        let value = input_value("a\"<&é\u{202e}\u{1b}").into_string();
        assert_eq!(value, "a&quot;&lt;&amp;é&#8238;&#27;");
        let input = html! { input value=(input_value("\"\u{200f}")); }.into_string();
        assert_eq!(input, r#"<input value="&quot;&#8207;">"#);
    }

    #[test]
    fn a_name_can_neither_be_markup_nor_turn_the_text_around_it() {
        let html = name("<script>alert(\"x\")</script>\u{202e}\u{1b}&amp;").into_string();
        assert_eq!(
            html,
            r#"<bdi class="name">&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;\u{202e}\u{1b}&amp;amp;</bdi>"#
        );
    }
}
