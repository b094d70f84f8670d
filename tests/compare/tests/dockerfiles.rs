//! The corpus of Dockerfiles beside BuildKit.

use std::collections::HashSet;

use compare::{DockerfileSides, dockerfile_cases, dockerfile_differences};

#[test]
fn every_dockerfile_on_both_sides() {
    DockerfileSides::start().hold(&dockerfile_cases(), &dockerfile_differences());
}

#[test]
fn every_difference_is_explained() {
    let cases = dockerfile_cases();
    let names: HashSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    for row in dockerfile_differences() {
        assert!(row.cases.iter().all(|name| names.contains(name.as_str())), "no such case: {row:?}");
        assert!(row.why.len() > 20 && !(row.docker.is_empty() && row.here.is_empty()), "not explained: {row:?}");
    }
}
