pub mod runtime {
    use std::{
        cell::{Cell, RefCell},
        collections::BTreeMap,
        future::{Future, poll_fn},
        pin::pin,
        task::{Poll, Waker},
    };

    shuttle::thread_local! {
        /// Of the shuttle task.
        static CURRENT: Cell<u32> = Cell::new(0);
    }

    thread_local! {
        // All tasks of a schedule share a thread. Numbers are not used again by another schedule.
        static LATEST: Cell<u32> = const { Cell::new(0) };
        /// Runtimes that are not driven, and who is to be woken when they are.
        static LEFT: RefCell<BTreeMap<u32, Vec<Waker>>> = const { RefCell::new(BTreeMap::new()) };
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum RuntimeFlavor {
        CurrentThread,
        MultiThread,
    }

    /// There is always a runtime: that of the task, or shuttle's, which is always driven.
    #[derive(Debug, Clone)]
    pub struct Handle(u32);

    impl Handle {
        pub fn try_current() -> Result<Self, real_tokio::runtime::TryCurrentError> {
            Ok(Self(CURRENT.with(Cell::get)))
        }

        /// A runtime that may be left, so that its tasks are not polled.
        pub fn that_may_be_left() -> Self {
            LATEST.set(LATEST.get() + 1);
            Self(LATEST.get())
        }

        pub fn id(&self) -> u32 {
            self.0
        }

        pub fn runtime_flavor(&self) -> RuntimeFlavor {
            if self.0 == 0 { RuntimeFlavor::MultiThread } else { RuntimeFlavor::CurrentThread }
        }

        pub fn leave(&self) {
            LEFT.with_borrow_mut(|left| left.insert(self.0, Vec::new()));
        }

        pub fn come_back(&self) {
            let woken = LEFT.with_borrow_mut(|left| left.remove(&self.0));
            woken.into_iter().flatten().for_each(Waker::wake);
        }

        pub fn spawn<F: Future<Output = ()> + Send + 'static>(
            &self,
            task: F,
        ) -> shuttle::future::JoinHandle<()> {
            let id = self.0;
            shuttle::future::spawn(async move {
                CURRENT.with(|current| current.set(id));
                let mut task = pin!(task);
                poll_fn(|context| {
                    let is_left = LEFT.with_borrow_mut(|left| match left.get_mut(&id) {
                        Some(wakers) => {
                            wakers.push(context.waker().clone());
                            true
                        }
                        None => false,
                    });
                    if is_left { Poll::Pending } else { task.as_mut().poll(context) }
                })
                .await;
            })
        }
    }
}
