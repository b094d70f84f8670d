//! A person's seccomp profile: Docker's form names architectures in a map and gives rules conditions, which are decided
//! here. One in the OCI form comes out as it was.

use serde_json::{Map, Value, json};

use crate::Error;

pub(super) fn of_docker(profile: &Value, capabilities: &[String]) -> Result<Value, Error> {
    let invalid = |what: &str| Error::Invalid(format!("Decoding seccomp profile failed: {what}"));
    let given = profile.as_object().ok_or_else(|| invalid("not an object"))?;
    let action = given.get("defaultAction").and_then(Value::as_str).ok_or_else(|| invalid("no defaultAction"))?;
    let mut out = Map::new();
    out.insert("defaultAction".into(), action.into());
    for key in ["defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"] {
        if let Some(value) = given.get(key).filter(|value| !value.is_null()) {
            out.insert(key.into(), value.clone());
        }
    }
    let map = list(given.get("archMap"));
    let native = format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_ascii_uppercase());
    let architectures = match map.is_empty() {
        true => list(given.get("architectures")).to_vec(),
        false => map
            .iter()
            .filter(|entry| entry["architecture"] == native.as_str())
            .flat_map(|entry| std::iter::once(&entry["architecture"]).chain(list(entry.get("subArchitectures"))))
            .cloned()
            .collect(),
    };
    if !architectures.is_empty() {
        out.insert("architectures".into(), architectures.into());
    }
    let mut rules = Vec::new();
    for rule in list(given.get("syscalls")) {
        if !applies(rule, capabilities) {
            continue;
        }
        let names = match rule.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) {
            Some(_) if !list(rule.get("names")).is_empty() => {
                return Err(invalid("'name' and 'names' were specified in the seccomp profile, use either"));
            }
            Some(name) => json!([name]),
            None => json!(list(rule.get("names"))),
        };
        let mut made = Map::from_iter([("names".to_owned(), names)]);
        made.insert("action".into(), rule.get("action").cloned().ok_or_else(|| invalid("a rule without action"))?);
        for key in ["errnoRet", "args"] {
            if let Some(value) = rule.get(key).filter(|value| !value.is_null() && **value != json!([])) {
                made.insert(key.into(), value.clone());
            }
        }
        rules.push(Value::Object(made));
    }
    out.insert("syscalls".into(), rules.into());
    Ok(Value::Object(out))
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `includes` must all hold, of `excludes` none may.
fn applies(rule: &Value, capabilities: &[String]) -> bool {
    let words = |part: &str, key: &str| list(rule[part].get(key)).iter().filter_map(Value::as_str);
    let machine = model::Platform::host().architecture;
    let has = |name: &str| capabilities.iter().any(|own| own == name);
    let newer = |part: &str| rule[part].get("minKernel").and_then(Value::as_str).map(kernel_is_at_least);
    let mut arches = words("includes", "arches").peekable();
    (arches.peek().is_none() || arches.any(|arch| arch == machine))
        && words("includes", "caps").all(has)
        && newer("includes").unwrap_or(true)
        && !words("excludes", "arches").any(|arch| arch == machine)
        && !words("excludes", "caps").any(has)
        && !newer("excludes").unwrap_or(false)
}

fn kernel_is_at_least(wanted: &str) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    version(&release) >= version(wanted)
}

fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_decide_and_leave_no_trace() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [{"architecture": format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_ascii_uppercase()),
                         "subArchitectures": ["SCMP_ARCH_X86"]}, {"architecture": "SCMP_ARCH_S390X"}],
            "syscalls": [
                {"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
                {"names": ["b"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_KILL"]}},
                {"names": ["c"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["d"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_KILL"]}},
                {"names": ["e"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
                {"names": ["f"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "999.0"}},
                {"name": "g", "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "999.0"}},
            ],
        });
        let out = of_docker(&profile, &["CAP_KILL".to_owned()]).expect("a profile");
        let names: Vec<&str> = list(out.get("syscalls")).iter().filter_map(|rule| rule["names"][0].as_str()).collect();
        assert_eq!(names, ["a", "b", "g"]);
        assert_eq!(out["architectures"].as_array().map(Vec::len), Some(2));
        assert!(out["syscalls"][0].get("includes").is_none() && out["syscalls"][0].get("args").is_none());
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for wrong in [json!([]), json!({}), json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"]}]})]
        {
            assert!(of_docker(&wrong, &[]).is_err(), "{wrong}");
        }
    }
}
