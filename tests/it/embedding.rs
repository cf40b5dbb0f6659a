//! The resources and the actors inside another actix application.

use actix_web::test::{TestRequest, call_and_read_body_json, call_service, init_service};
use actix_web::{App, HttpResponse, web};
use serde_json::{Value, json};
use turn_metrics::http::{self, Api};
use turn_metrics::runtime::Runtime;
use turn_metrics::settings::HttpSettings;

#[actix_web::test]
async fn the_resources_answer_under_any_scope_of_an_application_beside_its_own_routes() {
    let (one, other) = (Runtime::builder().start().await.unwrap(), Runtime::builder().start().await.unwrap());
    let mount = |runtime: &Runtime| http::resources(&Api::new(runtime.handles().clone(), HttpSettings::default()));
    let app = App::new()
        .route("/", web::get().to(|| async { HttpResponse::Ok().body("theirs") }))
        .service(web::scope("/observability").configure(mount(&one)))
        .service(web::scope("/tenants/{tenant}/metrics").configure(mount(&other)));
    let app = init_service(app).await;

    let done = r#"{"type":"done","conversationId":"c","turnId":"t","reason":"stop","durationMs":7}"#;
    let post = TestRequest::post().uri("/observability/events").insert_header(("content-type", "application/json"));
    let receipt: Value = call_and_read_body_json(&app, post.set_payload(done).to_request()).await;
    assert_eq!(receipt["sealed"][0]["ordinal"], 1);

    let read = |scope: &str| TestRequest::get().uri(&format!("{scope}/conversations/c/metrics")).to_request();
    let metrics: Value = call_and_read_body_json(&app, read("/observability")).await;
    assert_eq!(metrics["turns"][0]["durationMs"], 7);
    let metrics: Value = call_and_read_body_json(&app, read("/tenants/a/metrics")).await;
    assert_eq!(metrics, json!({ "turns": [] }), "two systems in one application share nothing");

    assert_eq!(call_service(&app, TestRequest::get().uri("/").to_request()).await.status(), 200);
    let ready: Value = call_and_read_body_json(&app, TestRequest::get().uri("/observability/ready").to_request()).await;
    assert_eq!(ready, json!({ "ready": true }));
    let unknown = call_service(&app, TestRequest::get().uri("/conversations/c/metrics").to_request()).await;
    assert_eq!(unknown.status(), 404, "nothing is mounted outside the scopes");
    one.shutdown().await;
    other.shutdown().await;
}
