//! An agent behind an actix-web application, with the metrics of its turns under `/observability`.

use actix_web::web::{self, Data};
use actix_web::{App, HttpResponse, HttpServer, Responder};
use turn_metrics::http::{self, Api};
use turn_metrics::recorder::{Outbox, Recorder};
use turn_metrics::runtime::Runtime;
use turn_metrics::settings::HttpSettings;
use turn_metrics::turn::{ConversationId, TurnId, TurnLabels, Usage};

/// A resource of the application: runs the agent loop and records it.
async fn ask(path: web::Path<(String, String)>, recorder: Data<Recorder>) -> impl Responder {
    let (conversation_id, turn_id) = path.into_inner();
    let (Ok(conversation_id), Ok(turn_id)) = (ConversationId::new(conversation_id), TurnId::new(turn_id)) else {
        return HttpResponse::BadRequest().body("no id\n");
    };
    let Ok(mut turn) = recorder.start_turn(conversation_id, turn_id, TurnLabels::of_model("some-model")) else {
        return HttpResponse::BadRequest().body("the id is too long\n");
    };
    let mut answer = String::new();
    for (nth, word) in ["look", "think", "answer"].into_iter().enumerate() {
        // If the client disconnects, this future is dropped, and the turn is recorded as aborted.
        let mut step = turn.start_step();
        answer += &model(word).await;
        step.token();
        let prompt = 1000 + u32::try_from(nth).unwrap_or_default() * 100;
        step.usage(Usage { input_tokens: prompt.into(), output_tokens: 20.into(), ..Usage::default() });
        step.end("stop");
    }
    turn.end("stop");
    HttpResponse::Ok().body(answer)
}

/// Stands in for a model.
async fn model(prompt: &str) -> String {
    tokio::task::yield_now().await;
    format!("{prompt}. ")
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // This runtime keeps its turns in memory. A program that wants to keep its turns calls `.data_dir("./data")` here.
    let runtime = Runtime::builder().start().await?;
    let outbox = Outbox::start(runtime.handles().intake.observe.clone(), 10_000);
    let recorder = Data::new(Recorder::new(outbox.clone()));
    let api = Api::new(runtime.handles().clone(), HttpSettings::default());

    let server = HttpServer::new(move || {
        App::new()
            .app_data(recorder.clone())
            .route("/ask/{conversation}/{turn}", web::post().to(ask))
            .service(web::scope("/observability").configure(http::resources(&api.on_this_thread())))
    });
    let server = server.workers(2).bind(("127.0.0.1", 0))?;
    let url = format!("http://{}", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    let serving = actix_web::rt::spawn(server);

    // The example plays the client itself. A program awaits `serving` here.
    let asked = url.clone();
    let answer = web::block(move || ureq::post(format!("{asked}/ask/c/t-1")).send_empty()?.body_mut().read_to_string());
    println!("answer: {}", answer.await??.trim_end());
    // A recorder sends events in the background. Wait for them, so that the next request returns them.
    outbox.flush().await;
    let metrics = web::block(move || {
        let get = ureq::get(format!("{url}/observability/conversations/c/metrics"));
        get.call()?.body_mut().read_to_string()
    });
    let metrics: serde_json::Value = serde_json::from_str(&metrics.await??)?;
    let turn = &metrics["turns"][0];
    println!("turn: {} with {} steps", turn["turnId"], turn["steps"].as_array().map_or(0, Vec::len));
    println!("usage: {}", turn["usage"]);

    // In this order: stop the server, send the last events, then shut down the actors and the store.
    handle.stop(true).await;
    serving.await??;
    outbox.flush().await;
    runtime.shutdown().await;
    Ok(())
}
