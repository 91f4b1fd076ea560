//! What every store must do, run against each implementation.
//!
//! A property is one function over `Stores`. It works on meshes of its
//! own, so that all of them may share one database at the same time, also with
//! other runs of the suite. Instants are constants near [`super::fixture::T0`]; those
//! of `retention` lie years before, since `expire` looks at every mesh.

use std::sync::Arc;

use claudemesh_broker::store::Stores;
use claudemesh_broker::store::sqlite::SqliteStore;
use tempfile::TempDir;

use crate::harness::postgres::{PrivatePostgres, store};

/// Makes a module of tests, one for each property.
///
/// The function given is `async fn() -> (Stores, guard)`: a store that
/// has been migrated, and whatever must live as long as the test.
macro_rules! conformance {
    ($module:ident, $fresh_store:path) => {
        mod $module {
            conformance!(@each $fresh_store:
                life::migrating_again_changes_nothing
                life::a_store_answers
                life::watching_for_changes_comes_back
                life::a_closed_store_refuses

                admission::an_active_member_is_admitted
                admission::strangers_are_unknown
                admission::a_revoked_member_is_told_of_its_mesh
                admission::an_active_membership_wins_over_a_revoked_one
                admission::members_are_the_active_ones
                admission::a_mesh_is_found_also_when_archived
                admission::a_session_key_leads_to_its_member
                admission::a_proven_session_key_wins_over_a_claimed_one

                presence::an_opened_presence_is_kept_whole
                presence::opening_writes_an_audit_row
                presence::a_new_presence_starts_after_the_last_multicast
                presence::a_reattach_goes_on_where_it_was
                presence::an_ended_presence_does_not_reattach
                presence::an_id_is_one_presence_for_good
                presence::a_change_changes_only_what_it_names
                presence::later_changes_of_a_batch_win
                presence::a_touched_presence_was_heard_of
                presence::an_ended_presence_does_not_change
                presence::only_unheard_open_presences_are_listed
                presence::a_directory_leads_to_the_newest_presence

                departure::a_suspended_presence_leaves_its_state
                departure::a_later_state_replaces_an_earlier_one
                departure::a_suspended_presence_keeps_only_its_own_mail
                departure::suspending_moves_the_position_only_forward
                departure::grace_counts_from_the_suspension
                departure::a_presence_ends_once
                departure::a_presence_that_came_back_elsewhere_is_not_ended_from_where_it_was
                departure::nobody_ends_or_takes_over_somebody_elses_presence
                departure::which_presences_have_ended_is_known
                departure::a_presence_named_twice_ends_once
                departure::an_ended_presence_lets_go_of_all_its_mail

                accept::an_accepted_envelope_is_kept_whole
                accept::an_accepted_envelope_has_one_audit_row
                accept::a_batch_keeps_its_order
                accept::a_large_batch_is_one_transaction
                accept::a_batch_may_span_meshes
                accept::any_text_survives
                accept::a_refused_batch_leaves_nothing
                accept::an_empty_batch_is_accepted
                accept::a_multicast_names_the_one_before
                accept::a_multicast_is_delivered_from_the_start
                accept::concurrent_batches_make_one_chain

                duplicates::a_repeat_in_a_batch_is_a_duplicate
                duplicates::a_repeat_of_a_queued_envelope_is_a_duplicate
                duplicates::a_repeat_of_a_delivered_envelope_is_a_duplicate
                duplicates::a_repeat_of_a_multicast_is_a_duplicate
                duplicates::concurrent_repeats_are_accepted_once
                duplicates::a_key_belongs_to_its_mesh_and_member
                duplicates::without_a_key_nothing_is_a_duplicate
                duplicates::a_repeat_is_known_without_being_taken

                claims::mail_comes_in_order_from_both_mailboxes
                claims::a_session_key_like_the_member_key_gives_mail_once
                claims::a_visitor_is_given_nothing_of_its_members
                claims::mail_of_others_is_not_given
                claims::a_limit_gives_the_oldest
                claims::a_busy_presence_gets_what_is_urgent
                claims::mail_in_flight_is_not_given_again
                claims::a_claim_keeps_others_off_until_it_expires
                claims::an_accepted_claim_keeps_others_off_until_it_expires
                claims::a_claim_is_given_back_only_by_its_holder
                claims::concurrent_claims_share_nothing
                claims::mail_that_nobody_holds_is_waiting

                confirm::a_confirmed_envelope_is_done
                confirm::only_a_recipient_confirms
                confirm::a_senders_own_id_confirms
                confirm::the_first_confirmation_counts
                confirm::a_multicast_row_is_not_confirmed
                confirm::positions_move_only_forward
                confirm::one_batch_confirms_many

                queue::multicasts_come_in_order_after_a_position
                queue::the_newest_place_is_the_last_that_was_given_away
                queue::places_that_were_given_away_before_an_instant_are_known
                queue::positions_beyond_the_newest_place_go_back
                queue::a_message_is_found_by_its_beginning
                queue::a_message_shows_its_claim
                queue::what_a_presence_has_claimed_is_found
                queue::the_queue_lists_what_is_not_delivered
                queue::what_is_posted_to_a_topic_does_not_wait
                queue::what_waits_is_measured_for_each_holder
                queue::the_depth_counts_what_is_not_delivered

                moderation::members_are_found_by_name_and_key
                moderation::a_ban_revokes_once
                moderation::an_unban_restores_once
                moderation::concurrent_bans_write_one_audit_row
                moderation::an_unknown_member_cannot_be_banned
                moderation::a_role_changes_with_an_audit_row
                moderation::a_grant_is_replaced_and_restored

                audit::appended_rows_are_chained
                audit::a_page_is_newest_first
                audit::a_page_of_one_event_type
                audit::rows_before_a_row_are_newest_first
                audit::a_row_names_its_actor_by_key_and_enrolled_name
                audit::a_walk_goes_on_after_a_row
                audit::concurrent_writers_make_one_chain
                audit_heads::a_head_is_signed_after_so_many_rows_or_so_long
                audit_heads::of_many_nodes_that_sign_a_head_at_once_one_does

                admin::a_new_mesh_has_its_owner
                admin::a_slug_is_taken_until_its_mesh_is_archived
                admin::a_mesh_is_found_by_slug_or_id
                admin::a_mesh_is_archived_once
                admin::meshes_are_counted_and_sorted
                admin::all_members_includes_the_revoked

                invites::an_invite_enrols_a_member
                invites::a_member_does_not_use_an_invite_again
                invites::a_bad_invite_is_refused_with_its_reason
                invites::checks_come_in_order
                invites::an_invite_is_used_no_more_than_it_may_be
                invites::a_banned_key_comes_back_by_a_newer_invite_only
                invites::invites_are_listed_newest_first
                invites::an_invite_is_revoked_once
                invites::a_token_is_unique

                common_keys::a_common_key_is_kept_for_members_and_handed_on_once
                common_keys::nobody_loses_what_it_reads_by_the_next_common_key
                common_keys::a_topics_common_key_is_for_who_is_in_it

                memories::a_memory_is_found_by_the_words_of_its_text_and_its_tags
                memories::any_query_is_words
                memories::the_best_memory_comes_first_and_of_equal_ones_the_newest
                memories::what_is_forgotten_is_found_no_more

                skills::a_skill_is_kept_whole_and_under_one_name
                skills::skills_are_listed_by_name_and_found_by_any_part
                skills::a_skill_is_removed_by_whom_it_belongs_to

                contexts::a_member_has_one_context_that_is_kept_whole
                contexts::contexts_are_found_by_a_part_of_the_summary_or_a_whole_tag
                contexts::contexts_are_listed_with_the_newest_first_and_each_once
                contexts::a_node_that_missed_contexts_reads_what_changed
                accounts::who_only_names_an_account_changes_nothing_about_it
                accounts::an_account_is_found_by_its_key_until_it_is_revoked
                accounts::another_programs_account_is_made_once_and_stays_revoked
                accounts::a_token_is_good_until_it_or_its_account_is_revoked
                accounts::a_session_ends_with_its_token_and_lists_are_cut
                accounts::an_accounts_invites_and_memberships_are_its_own_newest_first
                accounts::the_signing_key_is_made_once
                accounts::a_code_becomes_a_session_once
                accounts::a_code_dies_of_time_and_of_wrong_tries
                accounts::an_accounts_meshes_are_what_it_owns_and_is_in
                accounts::a_mesh_is_renamed_unless_the_slug_is_taken
                accounts::an_accounts_key_is_enrolled_once_and_nobody_elses_is_taken
                accounts::a_profile_changes_only_what_is_named_and_says_so_without_values
                accounts::grants_are_merged
                accounts::permissions_are_kept_for_each_member
                accounts::an_invite_is_found_by_its_code_and_its_token
                accounts::a_claimed_place_is_nobodys_until_its_first_key

                retention::delivered_envelopes_are_deleted
                retention::undelivered_envelopes_expire_with_an_audit_row
                retention::a_key_outlives_its_envelope
                retention::a_key_is_forgotten_in_the_end
                retention::a_limit_bounds_each_kind
                retention::what_was_posted_to_a_topic_goes_without_an_audit_row

                topics::a_post_is_in_the_history_and_has_its_place_and_one_audit_row
                topics::posts_and_multicasts_have_one_order
                topics::concurrent_posts_make_one_order
                topics::a_repeated_post_is_a_duplicate
                topics::a_post_to_another_meshs_topic_is_refused_whole
                topics::a_member_reads_what_came_since_it_joined
                topics::positions_in_topics_go_back_with_the_store
                topics::a_topic_that_is_not_public_is_joined_by_invitation
                topics::a_topic_is_made_once_and_found_by_name_and_id
                topics::a_history_is_read_page_by_page
                topics::a_roster_has_a_version_that_grows_with_every_change
                topics::old_posts_are_deleted_with_their_history
                topics::programs_see_topics_by_name_and_posts_by_their_place
                topics::a_member_sees_what_is_said_in_its_topics_and_who_mentions_it
                mcp_servers::a_server_is_kept_whole_and_forgotten
                mcp_servers::servers_are_listed_by_name_from_anywhere
                mcp_servers::servers_are_counted_and_bounded

                schedules::what_is_due_says_whether_its_mesh_is_archived
                schedules::what_is_due_is_accepted_and_gone_in_one_transaction
                schedules::of_those_who_fire_at_once_one_sends
                schedules::one_that_repeats_moves_on_and_one_that_is_put_off_stays
                schedules::what_cannot_be_sent_is_dropped_with_an_audit_row
                schedules::only_who_scheduled_it_takes_it_back
                schedules::what_is_cancelled_while_it_is_sent_is_one_of_both
                schedules::a_mesh_schedules_no_more_than_it_may

                tasks::a_task_goes_from_open_to_done
                tasks::of_simultaneous_claims_one_is_done
                tasks::a_claim_that_ran_out_is_open_as_read_and_as_claimed
                tasks::that_a_claim_ran_out_is_noted_once
                tasks::tasks_are_listed_newest_first_in_pages
                tasks::what_became_of_tasks_is_read_after_a_gap
                tasks::in_a_full_mesh_what_is_done_makes_room
                tasks::what_was_done_long_ago_is_forgotten
                vault::a_vault_is_its_members_only
                vault::a_later_vault_entry_stands_in_place_of_an_earlier_one
                vault::a_change_of_a_vault_has_one_audit_row
                vault::a_vault_is_listed_by_key_some_at_a_time
                vault::a_vault_has_a_bound

                api_keys::a_key_is_found_by_the_beginning_of_its_secret
                api_keys::a_key_is_good_until_it_ends
                api_keys::a_key_may_no_more_than_the_member_that_made_it
                api_keys::a_ban_revokes_keys_and_an_unban_brings_none_back
                api_keys::keys_are_listed_newest_first_some_at_a_time
                api_keys::a_key_is_revoked_by_its_id_or_the_beginning_of_it
                api_keys::a_use_is_noted_once_in_a_while
                api_keys::keys_that_ended_long_ago_are_forgotten
                api_keys::a_change_of_a_key_has_one_audit_row

                workspaces::a_roster_has_the_active_members_as_they_joined
                workspaces::whose_keys_called_is_known
                workspaces::a_member_without_a_user_is_one_by_itself
                workspaces::values_of_meshes_come_newest_first_within_bounds
                workspaces::tasks_of_meshes_come_by_what_is_to_be_done_of_them
                workspaces::memories_of_meshes_are_found_by_a_part_of_them
                inventory::tasks_are_counted_as_they_stand
                inventory::what_is_kept_is_named_without_its_values
                inventory::what_is_kept_is_counted_as_it_comes_and_goes

                streams::a_stream_is_made_once_whoever_asks
                streams::a_stream_that_is_deleted_is_free_and_counts_no_more
                streams::streams_are_listed_from_anywhere_the_oldest_first
                streams::a_mesh_has_no_more_streams_than_it_may
                stages::what_a_message_says_of_itself_is_kept
                stages::each_stage_is_told_as_what_it_is
                stages::another_session_of_the_member_shows_what_one_that_is_gone_had
                stages::who_wished_it_is_told_once_that_a_message_surfaced
                stages::a_message_is_taken_back_as_long_as_nobody_has_it
                stages::a_newer_message_takes_the_place_of_what_nobody_has
                stages::who_asked_is_told_of_what_is_too_old
                stages::who_asked_is_told_of_what_grants_keep_away
                stages::what_is_too_old_is_given_to_nobody

                states::a_value_is_kept_whole
                states::versions_count_and_decide
                states::each_change_has_one_audit_row_without_the_value
                states::one_of_many_writers_with_the_same_version_wins
                states::values_are_listed_by_key_from_anywhere
                states::who_missed_changes_reads_the_last_of_each
                states::a_mesh_keeps_no_more_than_it_may
                states::a_batch_may_hold_any_text

                webhooks::a_webhook_is_listed_until_it_is_deleted
                webhooks::a_secret_leads_to_its_webhook_while_its_maker_is_a_member
                webhooks::a_call_is_taken_once_by_its_key
                webhooks::who_comes_and_goes_is_told_in_its_order_to_who_asked
                webhooks::an_event_that_fails_waits_and_is_given_up_in_the_end
                webhooks::in_an_archived_mesh_nobody_calls_and_nobody_is_told
                webhooks::that_mail_waits_is_written_with_the_mail
                webhooks::what_has_no_row_is_noted_once_while_it_waits
                webhooks::a_webhook_keeps_a_thousand_events_and_counts_the_others
                webhooks::a_message_that_expires_is_told
            );
        }
    };
    (@each $fresh_store:path: $($group:ident :: $property:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $property() {
                let (store, _guard) = $fresh_store().await;
                crate::store::$group::$property(store).await;
            }
        )*
    };
}

conformance!(sqlite, super::sqlite_store);
conformance!(postgres, super::postgres_store);

async fn sqlite_store() -> (Stores, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = SqliteStore::open(&folder.path().join("broker.db")).await.expect("a new file");
    let store = Stores::of(Arc::new(store));
    store.database.migrate().await.expect("a new schema");
    (store, folder)
}

async fn postgres_store() -> (Stores, ()) {
    let url = PrivatePostgres::shared().migrated_database().await;
    (store(&url), ())
}

/// As [`conformance`], for properties that need another program beside the store.
macro_rules! beside_another_program {
    ($($group:ident :: $property:ident)*) => {
        mod beside_another_program {
            $(
                mod $property {
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn sqlite() {
                        let (store, folder) = super::super::sqlite_store().await;
                        let other =
                            crate::store::other::Other::Sqlite(folder.path().join("broker.db"));
                        crate::store::$group::$property(store, other).await;
                    }

                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn postgres() {
                        let url =
                            crate::harness::postgres::PrivatePostgres::shared()
                                .migrated_database()
                                .await;
                        let store = crate::harness::postgres::store(&url);
                        let other = crate::store::other::Other::Postgres(url);
                        crate::store::$group::$property(store, other).await;
                    }
                }
            )*
        }
    };
}

beside_another_program!(
    audit_heads::a_chain_that_was_written_anew_has_heads_that_prove_nothing
    missing::nothing_is_missing_while_others_write
    missing::an_end_that_was_cut_off_is_known_by_what_was_sent
    missing::a_chain_that_was_emptied_is_known_by_who_has_been_there
    missing::a_chain_without_the_row_that_began_it_is_known
    missing::what_other_programs_wrote_has_no_row_to_miss
    other::odd_grants_keep_no_mesh_from_being_served
    other::odd_descriptions_count_as_not_given
    memories::a_full_mesh_remembers_no_more
    skills::a_full_mesh_takes_no_more_skills
);
