//! The messages that travel over the bus: one .proto file for each service that answers, compiled by prost.
//!
//! Nothing but generated shapes lives here. Subjects, and which request belongs to which reply, are in
//! `bus::subjects`; conversions to domain types stand at the border of each service.

#![allow(clippy::all)]

include!(concat!(env!("OUT_DIR"), "/boxyard.v1.rs"));
