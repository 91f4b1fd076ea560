//! Traces of messages, for a collector. Only a build with the feature `otel`
//! has them; in others there is nothing to start.

#[cfg(feature = "otel")]
mod otel;

#[cfg(not(feature = "otel"))]
pub use self::none::Traces;
#[cfg(feature = "otel")]
pub use self::otel::Traces;

#[cfg(not(feature = "otel"))]
mod none {
    use tokio::runtime::Handle;

    use crate::config::{Config, Env};
    use crate::logging::TraceLayer;

    /// Of this build there are none.
    #[derive(Clone, Copy, Debug)]
    pub enum Traces {}

    impl Traces {
        /// Starts nothing.
        ///
        /// # Errors
        /// Never.
        pub fn start(_: &Config, _: Env<'_>, _: &Handle) -> anyhow::Result<Option<Self>> {
            Ok(None)
        }

        /// Never called.
        #[must_use]
        pub fn layer(&self) -> TraceLayer {
            match *self {}
        }

        /// Never called.
        pub fn shut_down(&self) {
            match *self {}
        }
    }
}
