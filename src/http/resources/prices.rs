//! `GET /prices`

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::answer::{whole, write};
use super::api::Api;
use super::query::Query;
use crate::http::error::ApiError;
use crate::report::{PicoDollars, PricedStep, QuotedRates};
use crate::turn::EpochMillis;

const PARAMETERS: &[&str] = &["model", "provider", "at"];

/// Returns the rates for a step of a model, with the name and the source under which they were found.
pub(crate) async fn get(api: Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let query = Query::read(request.query_string(), PARAMETERS)?;
    let model = query.text("model").filter(|model| !model.is_empty()).ok_or_else(|| ApiError::BadParameter {
        name: "model",
        allowed: "the name of a model as a kernel sends it".to_owned(),
    })?;
    let provider = query.text("provider");
    let at = query.moment("at", &api.zone)?.map(|at| EpochMillis::new(at.try_into().unwrap_or(0)));
    let at = at.unwrap_or_else(|| api.clock.now());
    let found = rates(&api, model, provider, at);
    let found = found.as_ref();
    let answer = Quoted {
        model,
        provider,
        at,
        name: found.map(|found| &*found.name),
        table: found.map(|found| &*found.table),
        usd_per_million_tokens: found.map(Dollars::of),
    };
    let mut json = Vec::new();
    write(&answer, &mut json)?;
    whole(&api, json)
}

/// Returns the rates of a model at a moment.
pub(crate) fn rates(api: &Api, model: &str, provider: Option<&str>, at: EpochMillis) -> Option<QuotedRates> {
    // The step has a short prompt, so its rates are those below the limit of any tier.
    api.prices.rates(&PricedStep {
        model,
        provider,
        at,
        prompt_tokens: 0,
        output_tokens: 0,
        cache_read_tokens: 0,
        cache_write_tokens: 0,
        cache_write_1h_tokens: 0,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Quoted<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    at: EpochMillis,
    name: Option<&'a str>,
    table: Option<&'a str>,
    usd_per_million_tokens: Option<Dollars>,
}

/// Prices as decimal texts, so that no price becomes a float.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dollars {
    input: String,
    output: String,
    cache_read: String,
    cache_write: String,
    #[serde(rename = "cacheWrite1h")]
    cache_write_1h: String,
}

impl Dollars {
    fn of(rates: &QuotedRates) -> Self {
        let text = |rate: PicoDollars| rate.to_string();
        Self {
            input: text(rates.input),
            output: text(rates.output),
            cache_read: text(rates.cache_read),
            cache_write: text(rates.cache_write),
            cache_write_1h: text(rates.cache_write_1h),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http::stand_in::{StandIn, get};
    use crate::testing::TestClock;

    fn api() -> Api {
        StandIn::default().serving().with_clock(Arc::new(TestClock::at(1_780_000_000_000)))
    }

    #[actix_web::test]
    async fn without_prices_every_rate_is_null() {
        assert_eq!(
            get(&api(), "/prices?model=m%2Fx").await.success(),
            r#"{"model":"m/x","at":1780000000000,"name":null,"table":null,"usdPerMillionTokens":null}"#
        );
    }

    #[cfg(feature = "prices")]
    #[actix_web::test]
    async fn rates_come_with_the_name_and_the_table_where_they_were_found() {
        use crate::report::price::{PriceData, PriceTable, Prices};

        let table = PriceTable::from_toml(
            "[[price]]\nmodel = \"own-*\"\nprovider = \"p\"\ninput = 3\noutput = 15\ncache_read = 0.3\n\
             [[price]]\nmodel = \"own-*\"\nprovider = \"p\"\nfrom = 2026-07-01\ninput = 4\noutput = 15\n",
        );
        let prices = Prices::new(table.unwrap(), PriceData::bundled());
        let data_name = prices.data_name().to_owned();
        let api = api().with_prices(Arc::new(prices));
        assert_eq!(
            get(&api, "/prices?model=own-1&provider=p").await.success(),
            r#"{"model":"own-1","provider":"p","at":1780000000000,"name":"p/own-*","table":"prices.file","usdPerMillionTokens":{"input":"3.000000000000","output":"15.000000000000","cacheRead":"0.300000000000","cacheWrite":"3.000000000000","cacheWrite1h":"3.000000000000"}}"#
        );
        let later = get(&api, "/prices?model=own-1&provider=p&at=2026-07-02T00:00:00Z").await;
        assert!(later.success().contains(r#""input":"4.000000000000""#), "{:?}", later.body);
        let published: serde_json::Value =
            serde_json::from_str(get(&api, "/prices?model=gpt-4o").await.success()).unwrap();
        assert_eq!(published["table"], *data_name);
        assert!(published["name"].as_str().unwrap().ends_with("gpt-4o"), "{published}");
        let unknown: serde_json::Value = serde_json::from_str(get(&api, "/prices?model=none").await.success()).unwrap();
        assert!(unknown["usdPerMillionTokens"].is_null() && unknown["name"].is_null());
    }

    #[actix_web::test]
    async fn a_bad_parameter_is_named_with_what_is_allowed() {
        for (query, named) in [
            ("", "`model` must be the name of a model"),
            ("?model=", "`model` must be the name of a model"),
            ("?model=m&at=x", "`at` must be a date such as"),
            ("?model=m&tokens=5", "`tokens` is no query parameter here: there are model, provider, at"),
        ] {
            let message = get(&api(), &format!("/prices{query}")).await.failure(400);
            assert!(message.contains(named), "{query}: {message}");
        }
    }
}
