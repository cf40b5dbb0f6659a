use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::DefaultHeaders;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{Error, HttpResponse, Resource, rt};

use super::api::Api;
use super::feed::hub::Hub;
use super::{
    all_turns, backup, conversations, erase, events, export, feed, health, import, metrics, prices, stats, summary,
    throughput, turns,
};
use crate::http::access::{
    ALL_TURNS, BACKUP, CONVERSATION, CONVERSATIONS, EVENTS, EXPORT, FEED, HEALTH, IMPORT, METRICS, PRICES, READY,
    Route, STATS, SUMMARY, THROUGHPUT, TURNS,
};
use crate::http::error::ApiError;

/// Mounts the resources where an actix application or scope is configured.
///
/// The application has to bring what `serve` adds: request ids, spans, the checks of a request's
/// host and page, CORS, and the answer to unknown paths. The settings of a body, of an answer and of a backup apply.
/// The settings of the listener, of connections, of origins and of host names configure the server and do not apply.
/// `GET /backup` is not included: [`backup_resource`] mounts it.
///
/// ```
/// # use actix_web::{App, web};
/// # use turn_metrics::http::{self, Api};
/// # use turn_metrics::runtime::Handles;
/// # use turn_metrics::settings::HttpSettings;
/// # fn mount(handles: Handles) {
/// let api = Api::new(handles, HttpSettings::default());
/// // What `HttpServer::new` calls on the thread of each worker.
/// let app = move || App::new().service(web::scope("/metrics").configure(http::resources(&api.on_this_thread())));
/// # }
/// ```
pub fn resources(api: &Api) -> impl FnOnce(&mut ServiceConfig) + use<> {
    let api = Data::new(api.clone());
    move |config| {
        rt::spawn(api.bodies.clone().follow(api.handles.operations.facts.erased()));
        config
            .app_data(api)
            // One for each worker, because this function runs for each.
            .app_data(Data::new(Hub::default()))
            .service(only(&EVENTS, [web::post().to(events::post)]))
            .service(only(&IMPORT, [web::post().to(import::post)]))
            .service(only(&METRICS, read(|route| route.to(metrics::get))))
            .service(only(&TURNS, read(|route| route.to(turns::get))))
            .service(only(&SUMMARY, read(|route| route.to(summary::get))))
            .service(only(&CONVERSATIONS, read(|route| route.to(conversations::get))))
            .service(only(&CONVERSATION, [web::delete().to(erase::delete)]))
            .service(only(&STATS, read(|route| route.to(stats::get))))
            .service(only(&THROUGHPUT, read(|route| route.to(throughput::get))))
            .service(only(&PRICES, read(|route| route.to(prices::get))))
            .service(only(&ALL_TURNS, read(|route| route.to(all_turns::get))))
            .service(only(&EXPORT, read(|route| route.to(export::get))))
            .service(only(&FEED, [web::get().to(feed::get)]))
            .service(only(&HEALTH, read(|route| route.to(health::health))))
            .service(only(&READY, read(|route| route.to(health::ready))));
    }
}

/// Mounts `GET /backup` beside [`resources`], in the same scope. Everyone who can send requests to it can read the
/// whole database.
///
/// The resource refuses requests that a browser sends for a page. It has no other guard, so put one in front of it.
///
/// ```
/// # use actix_web::App;
/// # use turn_metrics::http::{self, Api};
/// # fn mount(api: &Api) {
/// let app = App::new().configure(http::resources(api)).configure(http::backup_resource(api));
/// # }
/// ```
pub fn backup_resource(api: &Api) -> impl FnOnce(&mut ServiceConfig) + use<> {
    let api = Data::new(api.clone());
    move |config| {
        config.app_data(api).service(only(&BACKUP, [web::get().to(backup::get)]));
    }
}

/// Returns the handler for both methods that read.
pub(crate) fn read(to: impl Fn(actix_web::Route) -> actix_web::Route) -> [actix_web::Route; 2] {
    [Method::GET, Method::HEAD].map(|method| to(web::method(method)))
}

/// Returns a resource with these handlers. The answer to another method lists the allowed ones.
///
/// Unless a handler says otherwise, nobody may store its answers: a stored one would outlive an erasure.
pub(crate) fn only<const N: usize>(
    route: &Route,
    handlers: [actix_web::Route; N],
) -> Resource<impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse, Error = Error, InitError = ()>>
{
    let allowed = route.methods;
    handlers
        .into_iter()
        .fold(web::resource(route.path), Resource::route)
        .default_service(web::to(move || async move { Err::<HttpResponse, _>(ApiError::MethodNotAllowed { allowed }) }))
        .wrap(DefaultHeaders::new().add((header::CACHE_CONTROL, "no-store")))
}

#[cfg(test)]
mod tests {
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::{App, web};

    use super::*;
    use crate::http::access::ROUTES;
    use crate::http::stand_in::{StandIn, done, sealed_turns};
    use crate::settings::HttpSettings;
    use crate::turn::ConversationId;

    #[actix_web::test]
    async fn the_backup_is_mounted_by_those_who_want_it_and_refused_to_pages_there_too() {
        let api = StandIn::default().serving();
        let app = init_service(App::new().configure(resources(&api)).configure(backup_resource(&api))).await;
        let get = || TestRequest::get().uri("/backup");
        assert_eq!(call_service(&app, get().to_request()).await.status(), 503, "one is being made");
        let of_a_page = get().insert_header(("origin", "https://page.example")).to_request();
        assert_eq!(call_service(&app, of_a_page).await.status(), 403);
    }

    #[actix_web::test]
    async fn a_conversation_that_others_erase_leaves_the_cache() {
        let (api, _) = StandIn { turns: sealed_turns(1), ..StandIn::default() }.start_with(HttpSettings::default());
        let app = init_service(App::new().configure(resources(&api))).await;
        let get = TestRequest::get().uri("/conversations/c/metrics").to_request();
        assert_eq!(call_service(&app, get).await.status(), 200);
        let id = ConversationId::new("c").unwrap();
        assert!(api.bodies.get(&id).is_some());
        api.handles.operations.facts.tell_erased(&id);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(api.bodies.get(&id).is_none(), "its turns are still in memory");
    }

    #[actix_web::test]
    async fn the_resources_can_be_mounted_anywhere_in_another_application() {
        let (api, seen) = StandIn { turns: sealed_turns(1), ..StandIn::default() }.start_with(HttpSettings::default());
        let inner = web::scope("/{tenant}/metrics").configure(resources(&api));
        let app = init_service(App::new().service(web::scope("/deep").service(inner))).await;
        let post =
            TestRequest::post().uri("/deep/x/metrics/events").insert_header(("content-type", "application/json"));
        assert_eq!(call_service(&app, post.set_payload(done("a/b", "t")).to_request()).await.status(), 200);
        for resource in ["metrics", "turns"] {
            let get = TestRequest::get().uri(&format!("/deep/x/metrics/conversations/a%2Fb/{resource}"));
            assert_eq!(call_service(&app, get.to_request()).await.status(), 200);
        }
        for route in ROUTES.iter().filter(|route| route.path != BACKUP.path) {
            let put = TestRequest::put().uri(&format!("/deep/x/metrics{}", route.path.replace("{id}", "c")));
            assert_eq!(call_service(&app, put.to_request()).await.status(), 405, "{} is not mounted", route.path);
        }
        let backup = TestRequest::get().uri("/deep/x/metrics/backup").to_request();
        assert_eq!(call_service(&app, backup).await.status(), 404, "the whole database is not among the resources");
        let seen = seen.lock().unwrap();
        let asked = seen.ranges.iter().map(|range| &range.conversation_id).chain(&seen.found);
        // Each list of turns ends with one read that returns no turns.
        assert!(asked.eq([&seen.observes[0].conversation_id; 4]));
    }
}
