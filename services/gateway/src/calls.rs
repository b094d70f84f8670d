//! What the gateway answers on the bus.

use std::sync::Arc;

use bus::{Router, calls};

use crate::app::App;

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
    answer!(Router::new(),
        NodeHello => node_hello,
        BlobsInUse => in_use,
        BuildNext => next_build,
        BuildRenew => renew_build,
        ImageResolve => resolve_image,
        StepLookup => lookup_step,
        StepResult => step_result,
        BuildFinish => finish_build,
        StepContainer => step_container,
    )
}
