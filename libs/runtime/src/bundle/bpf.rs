//! A seccomp profile as the kernel's filter program.
//!
//! crun compiles the profile at every start, which takes twice as long as all the rest of the start. It takes a compiled
//! one by an annotation, so each distinct profile is compiled once a process. runc ignores the annotation and reads the
//! profile, which therefore stays in the config.

use std::collections::HashMap;
use std::io::{Read as _, Seek as _};
use std::sync::{LazyLock, Mutex, PoisonError};

use base64::Engine as _;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Deserialize;
use serde_json::Value;

/// crun(1), "run.oci.seccomp_bpf_data": base64 of the program.
pub(super) const ANNOTATION: &str = "run.oci.seccomp_bpf_data";

/// OCI runtime-spec, linux.seccomp.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<i32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<i32>,
    #[serde(default)]
    args: Vec<Argument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// The program in base64. `None` where the profile asks for what is not expressed here (listeners, flags, rare actions);
/// then the runtime compiles it itself.
pub(super) fn compiled(profile: &Value) -> Option<String> {
    static COMPILED: LazyLock<Mutex<HashMap<String, Option<String>>>> = LazyLock::new(Mutex::default);
    let text = profile.to_string();
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    compiled.entry(text).or_insert_with(|| compile(profile)).clone()
}

fn compile(profile: &Value) -> Option<String> {
    if ["listenerPath", "listenerMetadata", "flags"].iter().any(|key| profile.get(key).is_some()) {
        return None;
    }
    let profile = Profile::deserialize(profile).ok()?;
    let program = program(&profile).ok()??;
    Some(base64::engine::general_purpose::STANDARD.encode(program))
}

fn program(profile: &Profile) -> Result<Option<Vec<u8>>, Box<dyn std::error::Error>> {
    let Some(default) = action(&profile.default_action, profile.default_errno_ret) else { return Ok(None) };
    let mut filter = ScmpFilterContext::new(default)?;
    // A tree instead of a chain, so that a call is found in a few steps.
    filter.set_ctl_optimize(2)?;
    for name in &profile.architectures {
        filter.add_arch(name.parse::<ScmpArch>()?)?;
    }
    for rule in &profile.syscalls {
        let Some(action) = action(&rule.action, rule.errno_ret) else { return Ok(None) };
        if action == default {
            continue;
        }
        let Some(conditions) = rule.args.iter().map(condition).collect::<Option<Vec<_>>>() else { return Ok(None) };
        for name in &rule.names {
            // A name that this libseccomp does not know can be called on no kernel that it knows.
            if let Ok(call) = ScmpSyscall::from_name(name) {
                filter.add_rule_conditional(action, call, &conditions)?;
            }
        }
    }
    let mut file = std::fs::File::from(memfd_create(c"seccomp", MFdFlags::MFD_CLOEXEC)?);
    filter.export_bpf(&mut file)?;
    file.rewind()?;
    let mut program = Vec::new();
    file.read_to_end(&mut program)?;
    Ok(Some(program))
}

fn action(name: &str, errno: Option<i32>) -> Option<ScmpAction> {
    Some(match name {
        "SCMP_ACT_ALLOW" => ScmpAction::Allow,
        "SCMP_ACT_ERRNO" => ScmpAction::Errno(errno.unwrap_or(libc::EPERM)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => ScmpAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => ScmpAction::KillProcess,
        "SCMP_ACT_LOG" => ScmpAction::Log,
        _ => return None,
    })
}

fn condition(argument: &Argument) -> Option<ScmpArgCompare> {
    let Argument { index, value, value_two, ref op } = *argument;
    let (op, datum) = match op.as_str() {
        "SCMP_CMP_NE" => (ScmpCompareOp::NotEqual, value),
        "SCMP_CMP_LT" => (ScmpCompareOp::Less, value),
        "SCMP_CMP_LE" => (ScmpCompareOp::LessOrEqual, value),
        "SCMP_CMP_EQ" => (ScmpCompareOp::Equal, value),
        "SCMP_CMP_GE" => (ScmpCompareOp::GreaterEqual, value),
        "SCMP_CMP_GT" => (ScmpCompareOp::Greater, value),
        "SCMP_CMP_MASKED_EQ" => (ScmpCompareOp::MaskedEqual(value), value_two),
        _ => return None,
    };
    Some(ScmpArgCompare::new(index, op, datum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_profile_compiles_to_whole_instructions() {
        let program = compiled(&super::super::seccomp::docker(&[])).expect("compiles");
        let bytes = base64::engine::general_purpose::STANDARD.decode(program).expect("base64");
        // struct sock_filter has eight bytes; a tree over some 300 calls has more than 300 instructions.
        assert_eq!(bytes.len() % 8, 0);
        assert!(bytes.len() / 8 > 300, "{} instructions", bytes.len() / 8);
    }

    #[test]
    fn what_is_not_expressed_is_left_to_the_runtime() {
        for profile in [
            serde_json::json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}),
            serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_NONE"]}),
        ] {
            assert_eq!(compiled(&profile), None, "{profile}");
        }
    }
}
