//! What a process counts of its calls.

use std::time::Duration;

use service::metrics::{self, Family, Kind};

use crate::{Call, Error};

static ASKED: Family = Family {
    name: "boxyard_bus_calls_total",
    help: "Calls that this process has made over the bus, by name and outcome (ok, or the kind of the error).",
    kind: Kind::Counter,
};
static SERVED: Family = Family {
    name: "boxyard_bus_served_seconds",
    help: "How long this process took to answer calls, by name and outcome (ok, or the kind of the error).",
    kind: Kind::Histogram,
};

pub(crate) fn asked<C: Call, T>(outcome: Result<T, Error>) -> Result<T, Error> {
    metrics::count(&ASKED, &[("call", C::NAME), ("outcome", word(&outcome))]);
    outcome
}

pub(crate) fn served<C: Call, T>(took: Duration, outcome: Result<T, Error>) -> Result<T, Error> {
    metrics::observe(&SERVED, &[("call", C::NAME), ("outcome", word(&outcome))], took);
    outcome
}

fn word<T>(outcome: &Result<T, Error>) -> &'static str {
    outcome.as_ref().err().map_or("ok", |error| error.kind().as_str())
}
