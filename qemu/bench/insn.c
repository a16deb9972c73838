/* A plugin of QEMU's TCG: counts the guest's instructions into a shared file, whose first eight octets they are.
 * The prototypes are QEMU's, written here so that nobody needs its headers.
 *   gcc -O2 -shared -fPIC -o insn.so insn.c; qemu-system-x86_64 ... -plugin insn.so,out=FILE */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SHOWN __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info_t;
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
/* Operation 0 adds. */
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *, uint64_t);

SHOWN int qemu_plugin_version = 1;
static uint64_t *counter;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    qemu_plugin_register_vcpu_tb_exec_inline(block, 0, counter, qemu_plugin_tb_n_insns(block));
}

SHOWN int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int count, char **arguments)
{
    int file = -1;
    for (int i = 0; i < count; i++)
        if (!strncmp(arguments[i], "out=", 4))
            file = open(arguments[i] + 4, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || ftruncate(file, sizeof *counter))
        return 1;
    counter = mmap(0, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (counter == MAP_FAILED)
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
