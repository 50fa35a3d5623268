//! Files that get shorter, and holes, while their pages are being stored.

use core::future::Future;
use core::pin::pin;

use super::*;

/// Whether it is over.
async fn poll_once(mut future: Pin<&mut impl Future>) -> bool {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

/// What was collected to be stored, and is not there yet, is not what others who come later find stored.
#[test]
fn nothing_of_a_file_is_stored_after_it_was_cut_off() {
    for punched in [false, true] {
        run(async move {
            let file = File::new(Vec::new());
            file.write(0, &[1; 3 * PAGE_SIZE]).await.unwrap();
            let cache = &file.cache;
            let mut flusher = pin!(cache.write_back(0..u64::MAX));
            assert!(!poll_once(flusher.as_mut()).await);
            assert_eq!(cache.dirty_count(), 0);
            let cut = async {
                match punched {
                    true => cache.punch(0..2).await,
                    false => file.truncate(0).await,
                }
            };
            let mut cut = pin!(cut);
            for _ in 0..20 {
                assert!(!poll_once(cut.as_mut()).await, "punched {punched}: what is on its way was not waited for");
            }
            flusher.await.unwrap();
            cut.await;
            assert_eq!(cache.page_count(), if punched { 1 } else { 0 });
            assert!(!cache.has_unstored());
        });
    }
}
