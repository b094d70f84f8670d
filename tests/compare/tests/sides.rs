//! Every case on both engines, and every difference with its reason.

use compare::{Sides, cases, differences, registry_cases};

#[test]
fn every_command_on_both_sides() {
    Sides::start(&[]).hold(&cases());
}

#[test]
fn every_difference_is_explained() {
    let cases = [cases(), registry_cases()].concat();
    for row in differences() {
        let case = cases.iter().find(|case| case.name == row.case);
        assert!(case.is_some_and(|case| case.steps.contains(&row.step)), "no such step: {row:?}");
        assert!(row.why.len() > 20, "not explained: {row:?}");
    }
}
