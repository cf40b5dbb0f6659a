/// Makes a struct of settings, its default, and its part of the table of all settings.
///
/// A line is a comment, then `name: Type = default, limits;`. Only a number has limits. The struct `Settings` has
/// settings of several sections, so its lines name the key: `name as "section.name": ...`. The structs of other
/// sections come last, in `sections`.
macro_rules! section {
    (
        $(#[$about:meta])+
        pub struct $struct:ident in $section:literal {
            $(
                $(#[doc = $comment:literal])+
                $name:ident $(as $key:literal)?: $type:ty = $default:expr $(, $limits:expr)?;
            )+
            $(sections {
                $(
                    $(#[doc = $part_about:literal])+
                    $part:ident: $part_type:ty;
                )+
            })?
        }
    ) => {
        $(#[$about])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $struct {
            $(
                $(#[doc = $comment])+
                pub $name: $type,
            )+
            $($(
                $(#[doc = $part_about])+
                pub $part: $part_type,
            )+)?
        }

        impl Default for $struct {
            fn default() -> Self {
                Self {
                    $($name: $default,)+
                    $($($part: <$part_type>::default(),)+)?
                }
            }
        }

        #[cfg(feature = "server")]
        impl $crate::settings::setting::Section for $struct {
            fn table(&mut self) -> Vec<$crate::settings::setting::Setting<'_>> {
                use $crate::settings::setting::*;

                let settings = [$(Setting {
                    key: $crate::settings::section::key!($section, $name $(, $key)?),
                    comment: &[$($comment),+],
                    value: self.$name.in_table($($limits)?),
                },)+];
                let settings = settings.into_iter();
                $($(let settings = settings.chain(self.$part.table());)+)?
                settings.collect()
            }
        }
    };
}

/// The key of a setting: the explicit key if there is one, or else section and name.
#[cfg(feature = "server")]
macro_rules! key {
    ($section:literal, $name:ident) => {
        concat!($section, ".", stringify!($name))
    };
    ($section:literal, $name:ident, $key:literal) => {
        $key
    };
}

#[cfg(feature = "server")]
pub(super) use key;
pub(super) use section;
