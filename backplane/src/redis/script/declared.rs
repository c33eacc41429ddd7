//! Types with the names of a script's keys and arguments.

use crate::redis::script::arguments::Arguments;
use crate::redis::script::declaration::Script;

/// The keys and arguments of a call, by name: [`script!`] makes these types.
pub(in crate::redis) trait Declared: Sized {
    const SCRIPT: &'static Script;

    /// Moves the keys out.
    fn put_keys(&mut self, to: &mut Vec<String>);
    fn put_arguments(self, to: &mut impl Arguments);
}

/// Declares a script: a struct with a field for each of its keys and arguments, which an `Invocation` is made of.
///
/// ```text
/// script! {
///     /// What it does.
///     Join<'a> = "join", Scope::Operation(BatchScript::All);   // lua/join.lua
///     topic topic;                              // the argument that is the topic of a message, where it appends one
///     keys { connection, groups }               // strings; `name: Type` for others that are a `Key`
///     arguments { node: &'a NodeId, … }         // types that are an `Argument`
///     each groups: &'a GroupName as [group]     // any number of items follows: FIRST_GROUP, LAST_GROUP in the script
/// }
/// script! {
///     /// What it does.
///     Leave<'a> = "leave", as Join;             // another script with the same names
/// }
/// ```
macro_rules! script {
    (
        $(#[$doc:meta])*
        $Name:ident $(<$life:lifetime>)? = $file:literal, $scope:expr;
        $(topic $topic:ident;)?
        keys { $($key:ident $(: $Key:ty)?),* $(,)? }
        $(each $keys:ident $(: $MoreKeys:ty)? as [$($more_key:ident),+])?
        arguments { $($argument:ident: $Argument:ty),* $(,)? }
        $(each $arguments:ident $(: $MoreArguments:ty)? as [$($more_argument:ident),+])?
    ) => {
        $(#[$doc])*
        pub(in crate::redis) struct $Name $(<$life>)? {
            $(pub(in crate::redis) $key: script!(@key $($Key)?),)*
            $($(pub(in crate::redis) $keys: Vec<$MoreKeys>,)?)?
            $(pub(in crate::redis) $argument: $Argument,)*
            $($(pub(in crate::redis) $arguments: Vec<$MoreArguments>,)?)?
        }

        impl $(<$life>)? $crate::redis::script::declared::Declared for $Name $(<$life>)? {
            const SCRIPT: &'static $crate::redis::script::declaration::Script = {
                use $crate::redis::script::arguments as values;
                use $crate::redis::script::declaration::{Named, Names, Script};
                &Script {
                    name: $file,
                    text: script!(@text $file),
                    scope: $scope,
                    keys: Names {
                        single: &[$(Named {
                            name: stringify!($key),
                            parts: &[],
                            optional: <script!(@key $($Key)?) as values::Key>::OPTIONAL,
                        }),*],
                        repeated: &[$($(stringify!($more_key)),+)?],
                    },
                    arguments: Names {
                        single: &[$(Named {
                            name: stringify!($argument),
                            parts: <$Argument as values::Argument>::PARTS,
                            optional: false,
                        }),*],
                        repeated: &[$($(stringify!($more_argument)),+)?],
                    },
                    topic: script!(@topic $($topic)?),
                }
            };

            #[allow(unused_imports, unused_variables, reason = "a script may have no keys")]
            fn put_keys(&mut self, to: &mut Vec<String>) {
                use $crate::redis::script::arguments::Key;
                $(Key::put(std::mem::take(&mut self.$key), to);)*
                $($(<Vec<$MoreKeys>>::drain(&mut self.$keys, ..).for_each(|keys| Key::put(keys, to));)?)?
            }

            #[allow(unused_imports, unused_variables, reason = "a script may have no arguments")]
            fn put_arguments(self, to: &mut impl $crate::redis::script::arguments::Arguments) {
                use $crate::redis::script::arguments::Argument;
                $(Argument::put(self.$argument, to);)*
                $($(<Vec<$MoreArguments>>::into_iter(self.$arguments).for_each(|item| Argument::put(item, to));)?)?
            }
        }
    };
    (
        $(#[$doc:meta])*
        $Name:ident<$life:lifetime> = $file:literal, as $Other:ident;
    ) => {
        $(#[$doc])*
        pub(in crate::redis) struct $Name<$life>(pub(in crate::redis) $Other<$life>);

        impl<$life> $crate::redis::script::declared::Declared for $Name<$life> {
            const SCRIPT: &'static $crate::redis::script::declaration::Script = {
                use $crate::redis::script::declaration::Script;
                &Script {
                    name: $file,
                    text: script!(@text $file),
                    ..*<$Other<$life>>::SCRIPT
                }
            };

            fn put_keys(&mut self, to: &mut Vec<String>) {
                self.0.put_keys(to);
            }

            fn put_arguments(self, to: &mut impl $crate::redis::script::arguments::Arguments) {
                self.0.put_arguments(to);
            }
        }
    };
    (@text $file:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/redis/script/lua/", $file, ".lua"))
    };
    (@key) => { String };
    (@key $Key:ty) => { $Key };
    (@topic) => { None };
    (@topic $topic:ident) => { Some(stringify!($topic)) };
}

pub(in crate::redis) use script;
