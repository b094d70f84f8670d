//! placeholder
use clap::Args;
use crate::failure::Outcome;
#[derive(Args, Debug)]
pub struct Up {}
#[derive(Args, Debug)]
pub struct Down {}
#[derive(Args, Debug)]
pub struct Status {}
impl Up { pub async fn run(self) -> Outcome { Ok(()) } }
impl Down { pub async fn run(self) -> Outcome { Ok(()) } }
impl Status { pub async fn run(self) -> Outcome { Ok(()) } }
