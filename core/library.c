/* SPDX-License-Identifier: MIT */
#include "library.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kinds.h"
#include "options.h"
#include "registry.h"

#if defined __x86_64__
enum { OWN_MACHINE = EM_X86_64 };
#elif defined __aarch64__
enum { OWN_MACHINE = EM_AARCH64 };
#elif defined __riscv
enum { OWN_MACHINE = EM_RISCV };
#else
enum { OWN_MACHINE = EM_NONE }; /* then dlopen is asked */
#endif

/* --- the file ------------------------------------------------------------------ */

/* Whoever may write the file or its folder decides what runs here. A group that is the
 * process's own is fine: that is how umask 002 with private groups works. */
static int check_writers(const char *what, const char *path, const struct stat *s, struct lathe_error *err)
{
    if (s->st_mode & S_IWOTH)
        return lathe_fail(err, LATHE_EINVAL, "%s: the %s can be written by everybody (mode %04o); take that away: "
                          "chmod o-w %.150s", path, what, s->st_mode & 07777, path);
    if ((s->st_mode & S_IWGRP) && s->st_gid != getegid() && s->st_gid != 0)
        return lathe_fail(err, LATHE_EINVAL, "%s: the %s can be written by a group that is not yours (mode %04o, "
                          "group %u); take that away: chmod g-w", path, what, s->st_mode & 07777, (unsigned)s->st_gid);
    return LATHE_OK;
}

static int check_folder(const char *resolved, struct lathe_error *err)
{
    char folder[PATH_MAX];
    struct stat s;
    snprintf(folder, sizeof folder, "%s", resolved);
    for (int level = 0; level < 2; level++) { /* its kind's folder and the plugin folder */
        char *slash = strrchr(folder, '/');
        if (!slash || slash == folder)
            return LATHE_OK;
        *slash = '\0';
        if (stat(folder, &s) != 0)
            return lathe_fail(err, LATHE_EIO, "%s: %s", folder, strerror(errno));
        int rc = check_writers("plugin's folder", folder, &s, err);
        if (rc != LATHE_OK)
            return rc;
    }
    return LATHE_OK;
}

static int beyond(uint64_t offset, uint64_t bytes, uint64_t size)
{
    uint64_t end;
    return __builtin_add_overflow(offset, bytes, &end) || end > size;
}

static int check_segments(int fd, const char *path, const ElfW(Ehdr) *head, uint64_t size, struct lathe_error *err)
{
    for (unsigned i = 0; i < head->e_phnum; i++) {
        ElfW(Phdr) segment;
        off_t at = (off_t)(head->e_phoff + (uint64_t)i * sizeof segment);
        if (pread(fd, &segment, sizeof segment, at) != (ssize_t)sizeof segment)
            return lathe_fail(err, LATHE_EIO, "%s: program header %u cannot be read", path, i);
        if (segment.p_type != PT_NULL && beyond(segment.p_offset, segment.p_filesz, size))
            return lathe_fail(err, LATHE_EFORMAT, "%s: truncated: segment %u ends at byte %llu, the file has %llu",
                              path, i, (unsigned long long)(segment.p_offset + segment.p_filesz),
                              (unsigned long long)size);
    }
    return LATHE_OK;
}

static int check_elf(int fd, const char *path, uint64_t size, struct lathe_error *err)
{
    ElfW(Ehdr) head;
    int class = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
    ssize_t got = pread(fd, &head, sizeof head, 0);
    if (got < SELFMAG || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0)
        return lathe_fail(err, LATHE_EFORMAT, "%s: not a shared object: its first bytes are not those of an ELF file",
                          path);
    if (got < (ssize_t)sizeof head)
        return lathe_fail(err, LATHE_EFORMAT, "%s: truncated: %llu bytes are less than an ELF header", path,
                          (unsigned long long)size);
    if (head.e_ident[EI_CLASS] != class)
        return lathe_fail(err, LATHE_EFORMAT, "%s: ELF class is %d, expected %d (%d-bit)", path,
                          head.e_ident[EI_CLASS], class, (int)sizeof(void *) * 8);
    if (head.e_ident[EI_DATA] != (__BYTE_ORDER == __LITTLE_ENDIAN ? ELFDATA2LSB : ELFDATA2MSB))
        return lathe_fail(err, LATHE_EFORMAT, "%s: built for the other byte order", path);
    if (OWN_MACHINE != EM_NONE && head.e_machine != OWN_MACHINE)
        return lathe_fail(err, LATHE_EFORMAT, "%s: built for another architecture: ELF machine is %u, expected %u",
                          path, head.e_machine, OWN_MACHINE);
    if (head.e_type != ET_DYN)
        return lathe_fail(err, LATHE_EFORMAT, "%s: ELF type is %u, expected %u (a shared object)", path, head.e_type,
                          ET_DYN);
    if (head.e_phentsize != sizeof(ElfW(Phdr)) || head.e_phnum == 0)
        return lathe_fail(err, LATHE_EFORMAT, "%s: damaged: %u program headers of %u bytes", path, head.e_phnum,
                          head.e_phentsize);
    if (beyond(head.e_phoff, (uint64_t)head.e_phnum * head.e_phentsize, size) ||
        beyond(head.e_shoff, (uint64_t)head.e_shnum * head.e_shentsize, size))
        return lathe_fail(err, LATHE_EFORMAT, "%s: truncated: its headers lie beyond its %llu bytes", path,
                          (unsigned long long)size);
    return check_segments(fd, path, &head, size, err);
}

static int inspect(const char *path, char *resolved, struct stat *s, char sha256[SHA256_HEX_BYTES],
                   struct lathe_error *err)
{
    if (path[0] != '/')
        return lathe_fail(err, LATHE_EINVAL, "%s: a plugin's path must be absolute", path);
    if (!realpath(path, resolved))
        return lathe_fail(err, LATHE_EIO, "%s: cannot be resolved: %s", path, strerror(errno));
    /* NONBLOCK: a FIFO in a plugin's place must not hold us up. */
    int fd = open(resolved, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return lathe_fail(err, LATHE_EIO, "%s: cannot be opened: %s", resolved, strerror(errno));
    int rc;
    if (fstat(fd, s) != 0)
        rc = lathe_fail(err, LATHE_EIO, "%s: %s", resolved, strerror(errno));
    else if (!S_ISREG(s->st_mode))
        rc = lathe_fail(err, LATHE_EINVAL, "%s: not a regular file", resolved);
    else
        rc = check_writers("file", resolved, s, err);
    if (rc == LATHE_OK)
        rc = check_folder(resolved, err);
    if (rc == LATHE_OK)
        rc = check_elf(fd, resolved, (uint64_t)s->st_size, err);
    if (rc == LATHE_OK)
        rc = sha256_descriptor(fd, resolved, sha256, err);
    close(fd);
    return rc;
}

int library_inspect(const char *path, char *resolved, char sha256[SHA256_HEX_BYTES], struct lathe_error *err)
{
    struct stat s;
    return inspect(path, resolved, &s, sha256, err);
}

/* --- the descriptor ------------------------------------------------------------ */

static int refuse(struct lathe_error *err, int code, const char *path, const char *field, const char *expected,
                  const char *found)
{
    return lathe_fail(err, code, "%s: field `%s`: expected %s, found %s", path, field, expected, found);
}

static int refuse_number(struct lathe_error *err, int code, const char *path, const char *field, unsigned long expected,
                         unsigned long found)
{
    return lathe_fail(err, code, "%s: field `%s`: expected %lu, found %lu%s", path, field, expected, found,
                      code == LATHE_EABI ? "; build it again with this Lathe's headers" : "");
}

static int check_api(const char *path, const struct lathe_plugin *plugin, struct lathe_error *err)
{
    const struct kind_info *kind = kind_info(plugin->kind);
    if (!plugin->api)
        return refuse(err, LATHE_EINVAL, path, "api", "the kind's table", "NULL");
    const struct lathe_api_head *head = plugin->api;
    if (head->abi != kind->abi)
        return refuse_number(err, LATHE_EABI, path, "api->abi", kind->abi, head->abi);
    if (head->size != kind->table_bytes)
        return refuse_number(err, LATHE_EABI, path, "api->size", kind->table_bytes, head->size);
    const char *slot = kind_empty_slot(plugin->kind, plugin->api);
    if (slot)
        return lathe_fail(err, LATHE_EINVAL, "%s: field `api->%s`: expected a function, found NULL: the required slot "
                          "`%s` of a %s is empty", path, slot, slot, kind->name);
    return LATHE_OK;
}

int library_check(const char *path, const struct lathe_plugin *plugin, size_t exported_bytes, int kind,
                  const char *name, struct lathe_error *err)
{
    if (exported_bytes > 0 && exported_bytes < sizeof *plugin)
        return refuse_number(err, LATHE_EABI, path, "sizeof " LATHE_PLUGIN_SYMBOL, sizeof *plugin, exported_bytes);
    if (plugin->abi != LATHE_PLUGIN_ABI)
        return refuse_number(err, LATHE_EABI, path, "abi", LATHE_PLUGIN_ABI, plugin->abi);
    if (plugin->size != sizeof *plugin)
        return refuse_number(err, LATHE_EABI, path, "size", sizeof *plugin, plugin->size);
    if (plugin->kind != kind)
        return refuse(err, LATHE_EINVAL, path, "kind", kind_name(kind), kind_name(plugin->kind));
    if (plugin->concurrency != LATHE_SERIAL && plugin->concurrency != LATHE_PARALLEL)
        return refuse_number(err, LATHE_EINVAL, path, "concurrency", LATHE_PARALLEL,
                             (unsigned long)plugin->concurrency);
    if (!plugin->name)
        return refuse(err, LATHE_EINVAL, path, "name", name, "NULL");
    if (strcmp(plugin->name, name) != 0)
        return refuse(err, LATHE_EINVAL, path, "name", name, plugin->name);
    if (!plugin->version || !plugin->summary)
        return refuse(err, LATHE_EINVAL, path, plugin->version ? "summary" : "version", "a text", "NULL");
    struct lathe_error why;
    int rc = options_check(plugin->options, plugin->option_count, &why);
    if (rc != LATHE_OK)
        return lathe_fail(err, rc, "%s: field `options`: %.350s", path, why.message);
    return check_api(path, plugin, err);
}

/* --- both ------------------------------------------------------------------------ */

/* How large the exported object is, by the library's own symbol table; 0: unknown. */
static size_t exported_bytes(const void *symbol)
{
    Dl_info info;
    const ElfW(Sym) *entry = NULL;
    if (dladdr1(symbol, &info, (void **)&entry, RTLD_DL_SYMENT) == 0 || !entry)
        return 0;
    return entry->st_size;
}

int library_open(const char *path, int kind, const char *name, struct library *library, struct lathe_error *err)
{
    char resolved[PATH_MAX];
    struct stat before, after;
    int rc = inspect(path, resolved, &before, library->sha256, err);
    if (rc != LATHE_OK)
        return rc;
    void *handle = dlopen(resolved, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *why = dlerror();
        return lathe_fail(err, LATHE_EINVAL, "cannot be loaded: %.400s", why ? why : resolved);
    }
    /* From here on it stays mapped: what it started (threads, destructors) may outlive us. */
    if (stat(resolved, &after) != 0 || after.st_ino != before.st_ino || after.st_dev != before.st_dev ||
        after.st_size != before.st_size || after.st_mtim.tv_sec != before.st_mtim.tv_sec ||
        after.st_mtim.tv_nsec != before.st_mtim.tv_nsec)
        return lathe_fail(err, LATHE_EINVAL, "%s: was changed while it was loaded; start again", resolved);
    const struct lathe_plugin *plugin = dlsym(handle, LATHE_PLUGIN_SYMBOL);
    if (!plugin)
        return lathe_fail(err, LATHE_EINVAL, "%s: exports no `" LATHE_PLUGIN_SYMBOL "`; see <lathe/plugin.h>",
                          resolved);
    rc = library_check(resolved, plugin, exported_bytes(plugin), kind, name, err);
    if (rc == LATHE_OK)
        library->plugin = plugin;
    return rc;
}
