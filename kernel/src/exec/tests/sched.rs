use crate::exec::test_util::machine::{Clock, Machine};
use crate::exec::{Entity, SchedParams};
fn _x(_: Clock, _: &Machine, _: &Entity, _: SchedParams) {}
