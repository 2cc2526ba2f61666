"""Ranks: the processes that train and ask models, for one of them as for many.

A stage writes a job into the run's folder and has it carried out (`launch.carry_out`); what a job leaves is what stands
on disk. Its memory ends with its processes, and the notebook's kernel never loads torch.

    launch   in the kernel: writes the job, starts ranks, shows rank 0's progress, raises what went wrong
    server   forks ranks from a process that has imported torch and trl once
    rank     in a rank: joins the others, does the job, leaves its error
    team     in a rank: how many we are, and waiting for each other
    nodes    several machines: which of them this is, and `timer1 work`, which joins the jobs of another one's run
"""
