/* SPDX-License-Identifier: MIT */
/* What becomes of plugins that are broken, foreign, hostile or not there: a sentence that
 * names file, field, expected and found, and this process goes on. */
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "host.h"
#include "registry.h"

#define HOSTILE TEST_BUILD "/hostile"

static struct registry *hostile_registry(void)
{
    static const char *const folders[] = { HOSTILE, NULL };
    struct registry *registry;
    struct lathe_error err;
    assert_int_equal(registry_open(folders, &registry, &err), LATHE_OK);
    return registry;
}

static void assert_says(const struct lathe_error *err, const char *part)
{
    if (!strstr(err->message, part))
        fail_msg("\"%s\" is not in: %s", part, err->message);
}

/* --- files of the hostile folder ---------------------------------------------------- */

static void refuses_each_wrong_field_by_name(void **state)
{
    static const struct {
        const char *name;
        int code;
        const char *parts[3];
    } cases[] = {
        { "wrong_abi", LATHE_EABI, { "wrong_abi.so", "field `abi`", "expected 2, found 99" } },
        { "wrong_size", LATHE_EABI, { "wrong_size.so", "field `size`", "found 8" } },
        { "small_object", LATHE_EABI, { "small_object.so", "sizeof lathe_plugin", "found 8" } },
        { "no_symbol", LATHE_EINVAL, { "no_symbol.so", "exports no `lathe_plugin`", "" } },
        { "missing_function", LATHE_EINVAL, { "missing_function.so", "nobody_has_this_function", "" } },
        { "wrong_kind", LATHE_EINVAL, { "field `kind`", "expected scheduler", "found bus" } },
        { "wrong_name", LATHE_EINVAL, { "field `name`", "expected wrong_name", "found other" } },
        { "no_name", LATHE_EINVAL, { "field `name`", "found NULL", "" } },
        { "no_version", LATHE_EINVAL, { "field `version`", "found NULL", "" } },
        { "no_table", LATHE_EINVAL, { "field `api`", "found NULL", "" } },
        { "table_size", LATHE_EABI, { "field `api->size`", "found 16", "" } },
        { "table_abi", LATHE_EABI, { "field `api->abi`", "found 99", "" } },
        { "empty_slot", LATHE_EINVAL, { "required slot `rank`", "is empty", "" } },
        { "option_twice", LATHE_EINVAL, { "option `a`", "twice", "" } },
        { "option_default", LATHE_EINVAL, { "its default", "`a` is 99", "between 1 and 64" } },
        { "option_type", LATHE_EINVAL, { "option `a`", "type is 77", "" } },
        { "option_choices", LATHE_EINVAL, { "option `a`", "choices is NULL", "" } },
        { "load_crashes", LATHE_EINVAL, { "load_crashes.so", "crashed in loading", "" } },
        { "load_exits", LATHE_EINVAL, { "load_exits.so", "ended the process in loading", "" } },
        { "load_hangs", LATHE_EINVAL, { "load_hangs.so", "not done after 1 s of loading", "" } },
    };
    struct registry *registry = hostile_registry();
    (void)state;
    setenv("LATHE_PLUGIN_TRIAL_SECONDS", "1", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct registry_entry *entry = NULL;
        struct lathe_error err = { 0 };
        int rc = registry_find(registry, LATHE_KIND_SCHEDULER, cases[i].name, &entry, &err);
        if (rc != cases[i].code)
            fail_msg("%s: status %d: %s", cases[i].name, rc, err.message);
        assert_null(entry);
        for (int j = 0; j < 3; j++)
            assert_says(&err, cases[i].parts[j]);
    }
    unsetenv("LATHE_PLUGIN_TRIAL_SECONDS");
    registry_close(registry);
}

static void survives_every_way_create_can_go_wrong(void **state)
{
    static const struct {
        const char *name;
        int code;
        const char *part;
    } cases[] = {
        { "create_fails", LATHE_ENOTFOUND, "scheduler/create_fails: the moon is not there" },
        { "create_silent", LATHE_EIO, "gave no reason" },
        { "create_positive", LATHE_EINTERNAL, "returned 7, which is no status" },
        { "create_endless_message", LATHE_EIO, "AAAA" },
        { "create_nothing", LATHE_EINTERNAL, "returned no instance" },
        { "create_crashes", LATHE_EINVAL, "crashed in creating" },
        { "create_exits", LATHE_EINVAL, "ended the process in creating" },
        { "create_hangs", LATHE_EINVAL, "not done after 1 s of creating" },
        { "destroy_crashes", LATHE_EINVAL, "crashed in destroying" },
    };
    struct registry *registry = hostile_registry();
    (void)state;
    setenv("LATHE_PLUGIN_TRIAL_SECONDS", "1", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct instance *instance = NULL;
        struct lathe_error err = { 0 };
        int rc = instance_create(registry, LATHE_KIND_SCHEDULER, cases[i].name, NULL, 0, &instance, &err);
        if (rc != cases[i].code)
            fail_msg("%s: status %d: %s", cases[i].name, rc, err.message);
        assert_null(instance);
        assert_says(&err, cases[i].part);
    }
    unsetenv("LATHE_PLUGIN_TRIAL_SECONDS");
    registry_close(registry);
}

static void waits_for_a_slow_create_and_makes_the_instance(void **state)
{
    static const char *const names[] = { "create_slow", "sound" };
    struct registry *registry = hostile_registry();
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct option_setting settings[] = { { "quantum", "32" } };
        struct instance *instance = NULL;
        struct lathe_error err = { 0 };
        int rc = instance_create(registry, LATHE_KIND_SCHEDULER, names[i], settings, 1, &instance, &err);
        if (rc != LATHE_OK)
            fail_msg("%s", err.message);
        assert_string_equal(instance->options_json, "{\"quantum\": 32}");
        assert_int_equal(strlen(instance->entry->sha256), 64);
        instance_destroy(instance);
    }
    registry_close(registry);
}

static void lists_refused_files_beside_sound_ones(void **state)
{
    struct registry *registry = hostile_registry();
    const struct registry_entry *entries;
    struct lathe_error err;
    size_t count;
    int refused = 0, sound = 0;
    (void)state;
    setenv("LATHE_PLUGIN_TRIAL_SECONDS", "1", 1);
    assert_int_equal(registry_list(registry, &entries, &count, &err), LATHE_OK);
    unsetenv("LATHE_PLUGIN_TRIAL_SECONDS");
    for (size_t i = 0; i < count; i++) {
        assert_true((entries[i].plugin == NULL) == (entries[i].refusal != NULL));
        refused += entries[i].refusal != NULL;
        sound += strcmp(entries[i].name, "sound") == 0 && entries[i].plugin;
        if (i > 0) /* kinds in order, names sorted */
            assert_true(entries[i].kind > entries[i - 1].kind || strcmp(entries[i].name, entries[i - 1].name) > 0);
    }
    assert_int_equal(refused, 20);
    assert_int_equal(sound, 1);
    registry_close(registry);
}

/* --- names and folders --------------------------------------------------------------- */

static void refuses_names_that_are_paths(void **state)
{
    static const char *const names[] = { "../sound", "/etc/passwd", "sound.so", "", "Sound", "a b", "./sound",
                                         "%2e%2e", "sound\n" };
    struct registry *registry = hostile_registry();
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct registry_entry *entry;
        struct lathe_error err;
        assert_int_equal(registry_find(registry, LATHE_KIND_SCHEDULER, names[i], &entry, &err), LATHE_EINVAL);
        assert_says(&err, "no plugin name");
    }
    registry_close(registry);
}

static void suggests_the_nearest_name(void **state)
{
    struct registry *registry = hostile_registry();
    const struct registry_entry *entry;
    struct lathe_error err;
    (void)state;
    assert_int_equal(registry_find(registry, LATHE_KIND_SCHEDULER, "suond", &entry, &err), LATHE_ENOTFOUND);
    assert_says(&err, "did you mean `sound`?");
    registry_close(registry);
}

static void refuses_relative_and_absent_folders(void **state)
{
    static const char *const relative[] = { "plugins", NULL }, *const absent[] = { "/nowhere/at/all", NULL };
    struct registry *registry = NULL;
    struct lathe_error err;
    (void)state;
    assert_int_equal(registry_open(relative, &registry, &err), LATHE_EINVAL);
    assert_says(&err, "relative");
    assert_int_equal(registry_open(absent, &registry, &err), LATHE_ENOTFOUND);
    assert_says(&err, "/nowhere/at/all");
    setenv("LATHE_PLUGIN_PATH", HOSTILE ":./here", 1);
    assert_int_equal(registry_open(NULL, &registry, &err), LATHE_EINVAL);
    assert_says(&err, "./here");
    setenv("LATHE_PLUGIN_PATH", "::" HOSTILE ":", 1);
    assert_int_equal(registry_open(NULL, &registry, &err), LATHE_OK);
    const struct registry_entry *entry;
    assert_int_equal(registry_find(registry, LATHE_KIND_SCHEDULER, "sound", &entry, &err), LATHE_OK);
    registry_close(registry);
    unsetenv("LATHE_PLUGIN_PATH");
}

/* --- files made here ----------------------------------------------------------------- */

struct folder {
    char root[64], kind[128];
    const char *folders[2];
};

static void make_folder(struct folder *f)
{
    snprintf(f->root, sizeof f->root, "/tmp/lathe-registry-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    snprintf(f->kind, sizeof f->kind, "%s/scheduler", f->root);
    assert_int_equal(mkdir(f->kind, 0755), 0);
    f->folders[0] = f->root;
    f->folders[1] = NULL;
}

static void remove_folder(const struct folder *f)
{
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", f->root);
    assert_int_equal(system(command), 0);
}

static unsigned char *read_sound(size_t *count)
{
    FILE *file = fopen(HOSTILE "/scheduler/sound.so", "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *count = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(*count);
    assert_int_equal(fread(bytes, 1, *count, file), *count);
    fclose(file);
    return bytes;
}

static void write_plugin(const struct folder *f, const char *name, const void *bytes, size_t count)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s.so", f->kind, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    fclose(file);
    chmod(path, 0755);
}

/* What a fresh registry says of `name` in that folder. */
static int find_in(const struct folder *f, const char *name, struct lathe_error *err)
{
    struct registry *registry;
    const struct registry_entry *entry;
    int rc = registry_open(f->folders, &registry, err);
    if (rc != LATHE_OK)
        return rc;
    rc = registry_find(registry, LATHE_KIND_SCHEDULER, name, &entry, err);
    registry_close(registry);
    return rc;
}

static void refuses_what_is_no_whole_shared_object(void **state)
{
    struct folder f;
    struct lathe_error err;
    size_t count;
    unsigned char *sound = read_sound(&count);
    (void)state;
    make_folder(&f);
    write_plugin(&f, "sound", "#!/bin/sh\nexit 0\n", 17);
    assert_int_equal(find_in(&f, "sound", &err), LATHE_EFORMAT);
    assert_says(&err, "not a shared object");
    write_plugin(&f, "sound", "", 0);
    assert_int_equal(find_in(&f, "sound", &err), LATHE_EFORMAT);
    write_plugin(&f, "sound", sound, 40);
    assert_int_equal(find_in(&f, "sound", &err), LATHE_EFORMAT);
    assert_says(&err, "truncated");
    for (size_t n = 64; n < count; n += 61) { /* every cut loses at least the section headers */
        write_plugin(&f, "sound", sound, n);
        if (find_in(&f, "sound", &err) != LATHE_EFORMAT)
            fail_msg("cut at %zu of %zu: %s", n, count, err.message);
        assert_says(&err, "truncated");
    }
    write_plugin(&f, "sound", sound, count);
    if (find_in(&f, "sound", &err) != LATHE_OK)
        fail_msg("whole: %s", err.message);
    free(sound);
    remove_folder(&f);
}

static void refuses_other_architectures(void **state)
{
    struct folder f;
    struct lathe_error err;
    size_t count;
    unsigned char *bytes = read_sound(&count);
    Elf64_Ehdr *head = (Elf64_Ehdr *)(void *)bytes;
    (void)state;
    make_folder(&f);
    Elf64_Half own = head->e_machine;
    head->e_machine = own == EM_S390 ? EM_ARM : EM_S390;
    write_plugin(&f, "sound", bytes, count);
    assert_int_equal(find_in(&f, "sound", &err), LATHE_EFORMAT);
    assert_says(&err, "another architecture");
    head->e_machine = own;
    head->e_ident[EI_CLASS] = ELFCLASS32;
    write_plugin(&f, "sound", bytes, count);
    assert_int_equal(find_in(&f, "sound", &err), LATHE_EFORMAT);
    assert_says(&err, "ELF class is 1, expected 2");
    head->e_ident[EI_CLASS] = ELFCLASS64;
    head->e_phoff = UINT64_MAX - 8; /* the sum wraps */
    write_plugin(&f, "sound", bytes, count);
    assert_int_equal(find_in(&f, "sound", &err), LATHE_EFORMAT);
    free(bytes);
    remove_folder(&f);
}

static void refuses_files_and_folders_that_everybody_may_write(void **state)
{
    struct folder f;
    struct lathe_error err;
    char path[256];
    size_t count;
    unsigned char *sound = read_sound(&count);
    (void)state;
    make_folder(&f);
    write_plugin(&f, "sound", sound, count);
    snprintf(path, sizeof path, "%s/sound.so", f.kind);
    chmod(path, 0777);
    assert_int_equal(find_in(&f, "sound", &err), LATHE_EINVAL);
    assert_says(&err, "can be written by everybody");
    chmod(path, 0755);
    chmod(f.kind, 0777);
    assert_int_equal(find_in(&f, "sound", &err), LATHE_EINVAL);
    assert_says(&err, "can be written by everybody");
    chmod(f.kind, 0755);
    chmod(f.root, 01777);
    assert_int_equal(find_in(&f, "sound", &err), LATHE_EINVAL);
    chmod(f.root, 0755);
    assert_int_equal(find_in(&f, "sound", &err), LATHE_OK);
    free(sound);
    remove_folder(&f);
}

static void refuses_links_to_something_else(void **state)
{
    struct folder f;
    struct lathe_error err;
    char path[256];
    (void)state;
    make_folder(&f);
    snprintf(path, sizeof path, "%s/fine.so", f.kind);
    assert_int_equal(symlink(HOSTILE "/scheduler/sound.so", path), 0);
    assert_int_equal(find_in(&f, "fine", &err), LATHE_EINVAL); /* swapped: another plugin's file */
    assert_says(&err, "expected fine, found sound");
    unlink(path);
    assert_int_equal(symlink("/nowhere/sound.so", path), 0);
    assert_int_equal(find_in(&f, "fine", &err), LATHE_EIO);
    assert_says(&err, "cannot be resolved");
    unlink(path);
    assert_int_equal(symlink(path, path), 0); /* a link to itself */
    assert_int_equal(find_in(&f, "fine", &err), LATHE_EIO);
    unlink(path);
    assert_int_equal(mkfifo(path, 0644), 0);
    assert_int_equal(find_in(&f, "fine", &err), LATHE_EINVAL);
    assert_says(&err, "not a regular file");
    unlink(path);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(find_in(&f, "fine", &err), LATHE_EINVAL);
    rmdir(path);
    snprintf(path, sizeof path, "%s/sound.so", f.kind);
    assert_int_equal(symlink(HOSTILE "/scheduler/sound.so", path), 0);
    assert_int_equal(find_in(&f, "sound", &err), LATHE_OK); /* an honest link */
    remove_folder(&f);
}

static void never_looks_into_the_current_folder(void **state)
{
    struct folder f;
    struct registry *registry;
    const struct registry_entry *entry;
    struct lathe_error err;
    char before[PATH_MAX], path[256];
    size_t count;
    unsigned char *sound = read_sound(&count);
    (void)state;
    make_folder(&f);
    write_plugin(&f, "sound", sound, count);
    snprintf(path, sizeof path, "%s/plugins", f.root);
    assert_int_equal(symlink(".", path), 0);
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(f.root), 0);
    setenv("LD_LIBRARY_PATH", f.kind, 1);
    assert_int_equal(registry_open(NULL, &registry, &err), LATHE_OK);
    assert_int_equal(registry_find(registry, LATHE_KIND_SCHEDULER, "sound", &entry, &err), LATHE_ENOTFOUND);
    registry_close(registry);
    unsetenv("LD_LIBRARY_PATH");
    assert_int_equal(chdir(before), 0);
    free(sound);
    remove_folder(&f);
}

static void the_first_folder_decides_even_when_its_file_is_refused(void **state)
{
    struct folder f;
    struct registry *registry;
    const struct registry_entry *entry;
    struct lathe_error err;
    (void)state;
    make_folder(&f);
    write_plugin(&f, "sound", "not a plugin", 12);
    const char *folders[] = { f.root, HOSTILE, NULL };
    assert_int_equal(registry_open(folders, &registry, &err), LATHE_OK);
    assert_int_equal(registry_find(registry, LATHE_KIND_SCHEDULER, "sound", &entry, &err), LATHE_EFORMAT);
    assert_says(&err, "refused");
    registry_close(registry);
    remove_folder(&f);
}

/* --- the product's own ----------------------------------------------------------------- */

static void every_plugin_of_the_product_is_accepted(void **state)
{
    struct registry *registry;
    const struct registry_entry *entries;
    struct lathe_error err;
    size_t count;
    (void)state;
    assert_int_equal(registry_open(NULL, &registry, &err), LATHE_OK);
    assert_int_equal(registry_list(registry, &entries, &count, &err), LATHE_OK);
    assert_true(count >= 7);
    for (size_t i = 0; i < count; i++)
        if (!entries[i].plugin)
            fail_msg("%s", entries[i].refusal);
    registry_close(registry);
}

static void an_instance_survives_an_allocation_that_fails(void **state)
{
    struct registry *registry;
    struct lathe_error err;
    (void)state;
    assert_int_equal(registry_open(NULL, &registry, &err), LATHE_OK);
    uint64_t live = host_alloc_live();
    for (int64_t n = 0;; n++) {
        struct instance *instance = NULL;
        host_fail_alloc_after(n);
        int rc = instance_create(registry, LATHE_KIND_SCHEDULER, "fcfs", NULL, 0, &instance, &err);
        int failed = !host_fail_alloc_pending();
        host_fail_alloc_after(-1);
        assert_int_equal(rc, failed ? LATHE_ENOMEM : LATHE_OK);
        instance_destroy(instance);
        assert_int_equal(host_alloc_live(), live);
        if (!failed)
            break;
    }
    registry_close(registry);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_each_wrong_field_by_name),
        cmocka_unit_test(survives_every_way_create_can_go_wrong),
        cmocka_unit_test(waits_for_a_slow_create_and_makes_the_instance),
        cmocka_unit_test(lists_refused_files_beside_sound_ones),
        cmocka_unit_test(refuses_names_that_are_paths),
        cmocka_unit_test(suggests_the_nearest_name),
        cmocka_unit_test(refuses_relative_and_absent_folders),
        cmocka_unit_test(refuses_what_is_no_whole_shared_object),
        cmocka_unit_test(refuses_other_architectures),
        cmocka_unit_test(refuses_files_and_folders_that_everybody_may_write),
        cmocka_unit_test(refuses_links_to_something_else),
        cmocka_unit_test(never_looks_into_the_current_folder),
        cmocka_unit_test(the_first_folder_decides_even_when_its_file_is_refused),
        cmocka_unit_test(every_plugin_of_the_product_is_accepted),
        cmocka_unit_test(an_instance_survives_an_allocation_that_fails),
    };
    return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}
