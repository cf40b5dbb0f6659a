use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use serde::{Serialize, Serializer};
use tracing::error;

use super::api::Api;
use super::parts::in_parts;
use crate::http::error::{ApiError, Unavailable};
use crate::turn::serialize_number;

/// Writes a value as JSON.
pub(crate) fn write(value: &impl Serialize, json: &mut Vec<u8>) -> Result<(), ApiError> {
    serde_json::to_writer(json, value).map_err(|error| {
        error!(%error, "an answer could not be written as JSON");
        ApiError::ReadFailed
    })
}

/// Answers with JSON text, if the budget has room for the text until the client has read it.
pub(crate) fn whole(api: &Api, json: Vec<u8>) -> Result<HttpResponse, ApiError> {
    let held = api.reads.try_hold(json.len()).ok_or(ApiError::Unavailable(Unavailable::TooMuchUnread))?;
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(in_parts(json.into(), held)))
}

/// Writes a number as ECMAScript does; `None` becomes `null`.
#[expect(clippy::ref_option, reason = "serde asks for it")]
pub(crate) fn number<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => serialize_number(*number, serializer),
        None => serializer.serialize_none(),
    }
}
