//! What the gateway answers on the bus.

use std::sync::Arc;

use bus::{Router, calls};

use crate::app::App;

/// Calls whose answer depends on who asks.
macro_rules! answer_whom {
    ($app:expr, $router:expr, $($call:ident => $method:ident),* $(,)?) => {{
        let router = $router;
        $(let router = {
            let app = $app.clone();
            router.on_from::<calls::$call, _, _>(move |caller, request| {
                let app = app.clone();
                async move { app.$method(caller.user(), request).await.map_err(bus::Error::from) }
            })
        };)*
        router
    }};
}

/// What this one gateway has and no other: it is asked by its session.
pub fn of_this_gateway(app: Arc<App>) -> Router {
    macro_rules! while_wanted {
        ($router:expr, $($call:ident => $method:ident),* $(,)?) => {{
            let router = $router;
            $(let router = {
                let app = app.clone();
                router.on_while_wanted::<calls::$call, _, _>(move |request, progress| {
                    let app = app.clone();
                    async move { app.$method(progress.caller().user(), request).await.map_err(bus::Error::from) }
                })
            };)*
            router
        }};
    }
    let router = answer_whom!(app, Router::new(), SecretGet => get_secret, SshForward => forward_ssh);
    // These move files: they end with whoever wants them.
    let router = while_wanted!(router,
        ContextSync => sync_context,
        OutputSend => send_output,
        ContentGet => get_content,
        ContentPut => put_content,
    );
    router.on_from::<calls::BuildCredentials, _, _>(move |caller, request| {
        let app = app.clone();
        async move {
            caller.must_be("gateway", "BuildCredentials")?;
            app.build_credentials(request).await.map_err(bus::Error::from)
        }
    })
}

pub fn router(app: Arc<App>) -> Router {
    macro_rules! answer {
        ($router:expr, $($call:ident => $method:ident),* $(,)?) => {{
            let router = $router;
            $(let router = {
                let app = app.clone();
                router.on::<calls::$call, _, _>(move |request| {
                    let app = app.clone();
                    async move { app.$method(request).await.map_err(bus::Error::from) }
                })
            };)*
            router
        }};
    }
    let (hello, next, exporting, importing, layouts) =
        (app.clone(), app.clone(), app.clone(), app.clone(), app.clone());
    let router = Router::new()
        .on_from::<calls::NodeHello, _, _>(move |caller, request: proto::NodeHello| {
            let app = hello.clone();
            async move {
                let id = request.info.as_ref().map(|info| info.id.as_str()).unwrap_or_default();
                caller.must_be(&format!("node-{id}"), "NodeHello")?;
                app.node_hello(request).await.map_err(bus::Error::from)
            }
        })
        .on_from::<calls::BuildNext, _, _>(move |caller, request: proto::BuildNext| {
            let app = next.clone();
            async move {
                let id = request.worker.as_ref().map(|info| info.id.as_str()).unwrap_or_default();
                caller.must_be(&format!("worker-{id}"), "BuildNext")?;
                app.next_build(request).await.map_err(bus::Error::from)
            }
        });
    let router = answer_whom!(app, router,
        BuildFinish => finish_build,
        SessionLookup => session_lookup,
        CacheMountPut => put_cache_mount,
        BuildRenew => renew_build,
        StepLookup => lookup_step,
        StepResult => step_result,
        StepContainer => step_container,
        ResultPut => put_result,
    );
    answer!(router,
        BlobsInUse => in_use,
        Workers => helpers,
        ResultLookup => look_up_results,
        CacheMountGet => cache_mount,
        LayersLookup => lookup_layers,
    )
    .on_while_wanted::<calls::CacheImport, _, _>(move |request, progress| {
        let app = importing.clone();
        async move { app.import_cache(progress.caller().user(), request).await.map_err(bus::Error::from) }
    })
    .on_while_wanted::<calls::BuildExport, _, _>(move |request, progress| {
        let app = exporting.clone();
        async move { app.export_build(request, &progress).await.map_err(bus::Error::from) }
    })
    .on_while_wanted::<calls::LayoutResolve, _, _>(move |request, progress| {
        let app = layouts.clone();
        async move { app.resolve_layout(progress.caller().user(), request).await.map_err(bus::Error::from) }
    })
    .on_while_wanted::<calls::ImageResolve, _, _>(move |request, progress| {
        let app = app.clone();
        async move { app.resolve_image(request, &progress).await.map_err(bus::Error::from) }
    })
}
