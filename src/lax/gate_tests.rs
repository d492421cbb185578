use super::gate::Gate;

#[test]
fn additions_pass_while_the_task_is_relied_on_and_the_counter_is_open() {
    let gate = Gate::default();
    assert!(!gate.is_open());
    gate.rely_on_task(true);
    assert!(gate.is_open());
    gate.rely_on_task(false);
    assert!(!gate.is_open());
    gate.rely_on_task(true);
    assert!(!gate.close(), "it was open");
    assert!(!gate.is_open() && gate.relies_on_task());
}
