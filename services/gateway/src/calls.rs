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
    let router = answer_whom!(app, Router::new(),
        ContextSync => sync_context,
        SecretGet => get_secret,
        SshForward => forward_ssh,
        OutputSend => send_output,
    );
    let (getting, putting) = (app.clone(), app.clone());
    let router = router
        .on_from::<calls::ContentGet, _, _>(move |caller, request| {
            let app = getting.clone();
            async move {
                caller.must_be("sync", "ContentGet")?;
                app.get_content(request).await.map_err(bus::Error::from)
            }
        })
        .on_from::<calls::ContentPut, _, _>(move |caller, request| {
            let app = putting.clone();
            async move {
                caller.must_be("sync", "ContentPut")?;
                app.put_content(request).await.map_err(bus::Error::from)
            }
        });
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
    );
    answer!(router,
        BlobsInUse => in_use,
        BuildRenew => renew_build,
        Workers => helpers,
        StepLookup => lookup_step,
        StepResult => step_result,
        StepContainer => step_container,
        ResultLookup => look_up_results,
        ResultPut => put_result,
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
